package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/surgetank/surgetank/internal/amqp"
	"github.com/surgetank/surgetank/internal/tally"
)

// amqpCollector reports the metrics of the AMQP door at each scrape.
type amqpCollector struct{ door *amqp.Server }

var amqpFigures = figures[amqp.Figures]{
	gauge("surgetank_amqp_connections", "Open AMQP connections.", func(f *amqp.Figures) float64 { return float64(f.Connections) }),
	gauge("surgetank_amqp_stranger_connections", "Open AMQP connections before their login.", func(f *amqp.Figures) float64 { return float64(f.BeforeLogin) }),
	gauge("surgetank_amqp_blocked_connections", "AMQP connections whose publishes wait because the disk is nearly full.", func(f *amqp.Figures) float64 { return float64(f.Blocked) }),
	gauge("surgetank_amqp_channels", "Open AMQP channels.", func(f *amqp.Figures) float64 { return float64(f.Channels) }),
	gauge("surgetank_amqp_consumers", "Consumers of AMQP connections.", func(f *amqp.Figures) float64 { return float64(f.Consumers) }),
	counter("surgetank_amqp_connections_total", "AMQP connections that were accepted.", func(f *amqp.Figures) float64 { return float64(f.Accepted) }),
	counter("surgetank_amqp_refused_logins_total", "AMQP logins with a wrong user name or password.", func(f *amqp.Figures) float64 { return float64(f.RefusedLogins) }),
}

// Describe names the metrics.
func (amqpCollector) Describe(ch chan<- *prometheus.Desc) { amqpFigures.describe(ch) }

// Collect reads the figures.
func (c amqpCollector) Collect(ch chan<- prometheus.Metric) {
	now := c.door.Figures()
	amqpFigures.collect(ch, &now)
}

// limitCollector reports how often limits refused something, on all doors.
type limitCollector struct{ counts *tally.Counts }

var limitRefused = prometheus.NewDesc("surgetank_limit_refused_total", "Refusals by a limit, by limit.", []string{"limit"}, nil)

// Describe names the metrics.
func (limitCollector) Describe(ch chan<- *prometheus.Desc) { ch <- limitRefused }

// Collect reads the counts.
func (c limitCollector) Collect(ch chan<- prometheus.Metric) {
	c.counts.Each(func(l tally.Limit, n uint64) {
		ch <- prometheus.MustNewConstMetric(limitRefused, prometheus.CounterValue, float64(n), l.String())
	})
}
