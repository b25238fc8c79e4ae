package server

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/surgetank/surgetank/embedded"
)

// refusing returns why messages are refused while acks are accepted. It is empty if messages are
// accepted.
func (s *Server) refusing() string {
	h := s.broker.Health()
	if !h.Full {
		return ""
	}
	return fmt.Sprintf("the disk has been nearly full for %v; acks are taken, and the space of acked messages comes back by itself; "+
		"consume or drop messages, or make room on the disk", h.FullFor.Round(time.Second))
}

// diskCollector reports the log's disk usage at each scrape.
type diskCollector struct{ broker *embedded.Broker }

var (
	diskFull     = prometheus.NewDesc("surgetank_disk_full", "1 while messages are refused because the disk is nearly full, otherwise 0.", nil, nil)
	diskBytes    = prometheus.NewDesc("surgetank_disk_log_bytes", "Bytes of the log's files. Snapshots do not count.", nil, nil)
	diskNeeded   = prometheus.NewDesc("surgetank_disk_needed_bytes", "Bytes of stored messages in the log.", nil, nil)
	diskFreeable = prometheus.NewDesc("surgetank_disk_freeable_bytes", "Bytes of the log's files that a snapshot would free.", nil, nil)
)

// Describe names the metrics.
func (diskCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{diskFull, diskBytes, diskNeeded, diskFreeable} {
		ch <- d
	}
}

// Collect reads the figures.
func (c diskCollector) Collect(ch chan<- prometheus.Metric) {
	h := c.broker.Health()
	full := 0.0
	if h.Full {
		full = 1
	}
	show := func(d *prometheus.Desc, value float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	show(diskFull, full)
	show(diskBytes, float64(c.broker.LogStats().DiskBytes))
	show(diskNeeded, float64(h.NeededBytes))
	show(diskFreeable, float64(h.FreeableBytes))
}
