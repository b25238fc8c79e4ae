package server

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/surgetank/surgetank/embedded"
)

// refusing returns why messages are refused while acks are accepted. It is empty if messages are
// accepted.
func (s *Server) refusing() string {
	var reasons, full []string
	for n := 2; n <= s.broker.Shards(); n++ {
		switch h := s.broker.Shard(n).Health(); {
		case h.Err != nil && h.State == embedded.StateFailed:
			reasons = append(reasons, fmt.Sprintf("shard %d has failed, and the messages of its queues are refused; the other shards work: %v", n, h.Err))
		case h.Err != nil:
			reasons = append(reasons, fmt.Sprintf("shard %d is %s, and the messages of its queues are refused; the other shards work: %v", n, h.State, h.Err))
		}
	}
	for n := 1; n <= s.broker.Shards() && s.broker.Shards() > 1; n++ {
		if s.broker.Shard(n).Health().Full {
			full = append(full, strconv.Itoa(n))
		}
	}
	if len(full) > 0 {
		reasons = append(reasons, "the messages of the queues of shard "+strings.Join(full, " and ")+" are refused, because its disk is nearly full; acks are accepted, and the space of acked messages is freed automatically")
	}
	if len(reasons) > 0 {
		return strings.Join(reasons, "; ")
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
	shardUp     = prometheus.NewDesc("surgetank_shard_up", "1 while the shard works, 0 while it is not open.", []string{"shard"}, nil)
	shardState  = prometheus.NewDesc("surgetank_shard_state", "1 for the shard's present state, otherwise 0.", []string{"shard", "state"}, nil)
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
		for _, state := range shownStates {
			ch <- prometheus.MustNewConstMetric(shardState, prometheus.GaugeValue, is(h.State == state), strconv.Itoa(n), string(state))
		}
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
	for _, d := range []*prometheus.Desc{diskFull, diskBytes, diskNeeded, diskFreeable, shardUp, shardState, shardFull, shardBytes, shardNeeded} {
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
