package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/surgetank/surgetank/embedded"
)

// scrubCollector reports the scrub's progress and findings at each scrape. Its only label is the
// kind of damage, which has five values.
type scrubCollector struct{ broker *embedded.Broker }

var (
	scrubBytes   = prometheus.NewDesc("surgetank_scrub_bytes_total", "Bytes that the scrub has read.", nil, nil)
	scrubPasses  = prometheus.NewDesc("surgetank_scrub_passes_total", "Complete passes of the scrub over the data directory.", nil, nil)
	scrubLast    = prometheus.NewDesc("surgetank_scrub_last_pass_timestamp_seconds", "Time of the end of the last complete pass. 0 if no pass was completed since the start.", nil, nil)
	scrubErrors  = prometheus.NewDesc("surgetank_scrub_errors_total", "Files that the disk could not read, or that it read differently the next time.", nil, nil)
	scrubFound   = prometheus.NewDesc("surgetank_scrub_found_total", "Damage that the scrub found, by kind.", []string{"kind"}, nil)
	scrubDamaged = prometheus.NewDesc("surgetank_scrub_damaged", "Damage that is still on the disk, by kind.", []string{"kind"}, nil)
)

// Describe names the metrics.
func (scrubCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{scrubBytes, scrubPasses, scrubLast, scrubErrors, scrubFound, scrubDamaged} {
		ch <- d
	}
}

// Collect reads the figures.
func (c scrubCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.broker.LogStats().Scrub
	show := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, value, labels...)
	}
	last := 0.0
	if !s.LastPass.IsZero() {
		last = float64(s.LastPass.UnixNano()) / float64(time.Second)
	}
	show(scrubBytes, prometheus.CounterValue, float64(s.Bytes))
	show(scrubPasses, prometheus.CounterValue, float64(s.Passes))
	show(scrubLast, prometheus.GaugeValue, last)
	show(scrubErrors, prometheus.CounterValue, float64(s.Errors))
	for kind, n := range s.Found {
		show(scrubFound, prometheus.CounterValue, float64(n), kind)
	}
	for kind, n := range s.Damaged {
		show(scrubDamaged, prometheus.GaugeValue, float64(n), kind)
	}
}
