package server

import (
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/surgetank/surgetank/embedded"
)

// refusing returns why messages are refused while acks are accepted. It is empty if messages are
// accepted.
func (s *Server) refusing() string {
	for n := 2; n <= s.broker.Shards(); n++ {
		if err := s.broker.Shard(n).Health().Err; err != nil {
			return fmt.Sprintf("shard %d has failed, and the messages of its queues are refused; the other shards work: %v", n, err)
		}
	}
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

// Figures of each shard. A broker without shards has one.
var (
	shardUp     = prometheus.NewDesc("surgetank_shard_up", "1 while the shard works, 0 after its log failed.", []string{"shard"}, nil)
	shardFull   = prometheus.NewDesc("surgetank_shard_disk_full", "1 while the shard refuses messages because its disk is nearly full, otherwise 0.", []string{"shard"}, nil)
	shardBytes  = prometheus.NewDesc("surgetank_shard_disk_log_bytes", "Bytes of the files of the shard's log.", []string{"shard"}, nil)
	shardNeeded = prometheus.NewDesc("surgetank_shard_disk_needed_bytes", "Bytes of stored messages in the shard's log.", []string{"shard"}, nil)
)

// shards reads the figures of each shard.
func (c diskCollector) shards(ch chan<- prometheus.Metric) {
	is := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	for n := 1; n <= c.broker.Shards(); n++ {
		s := c.broker.Shard(n)
		h := s.Health()
		for _, m := range []struct {
			desc  *prometheus.Desc
			value float64
		}{{shardUp, is(h.Err == nil)}, {shardFull, is(h.Full)}, {shardBytes, float64(s.LogStats().DiskBytes)}, {shardNeeded, float64(h.NeededBytes)}} {
			ch <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, m.value, strconv.Itoa(n))
		}
	}
}

// Describe names the metrics.
func (diskCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{diskFull, diskBytes, diskNeeded, diskFreeable, shardUp, shardFull, shardBytes, shardNeeded} {
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
	c.shards(ch)
	show(diskFull, full)
	show(diskBytes, float64(c.broker.LogStats().DiskBytes))
	show(diskNeeded, float64(h.NeededBytes))
	show(diskFreeable, float64(h.FreeableBytes))
}
