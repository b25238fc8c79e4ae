package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/surgetank/surgetank/internal/amqp"
	"github.com/surgetank/surgetank/internal/tally"
)

// amqpCollector reports the metrics of the AMQP door at each scrape.
type amqpCollector struct{ door *amqp.Server }

// amqpFigure is one metric of the AMQP door.
type amqpFigure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*amqp.Figures) float64
}

func newAMQPFigure(name, help string, kind prometheus.ValueType, of func(*amqp.Figures) float64) amqpFigure {
	return amqpFigure{prometheus.NewDesc("surgetank_amqp_"+name, help, nil, nil), kind, of}
}

var amqpFigures = []amqpFigure{
	newAMQPFigure("connections", "Open AMQP connections.", prometheus.GaugeValue, func(f *amqp.Figures) float64 { return float64(f.Connections) }),
	newAMQPFigure("stranger_connections", "Open AMQP connections before their login.", prometheus.GaugeValue, func(f *amqp.Figures) float64 { return float64(f.Strangers) }),
	newAMQPFigure("blocked_connections", "AMQP connections whose publishes wait because the disk is nearly full.", prometheus.GaugeValue, func(f *amqp.Figures) float64 { return float64(f.Blocked) }),
	newAMQPFigure("channels", "Open AMQP channels.", prometheus.GaugeValue, func(f *amqp.Figures) float64 { return float64(f.Channels) }),
	newAMQPFigure("consumers", "Consumers of AMQP connections.", prometheus.GaugeValue, func(f *amqp.Figures) float64 { return float64(f.Consumers) }),
	newAMQPFigure("connections_total", "AMQP connections that were accepted.", prometheus.CounterValue, func(f *amqp.Figures) float64 { return float64(f.Accepted) }),
	newAMQPFigure("refused_logins_total", "AMQP logins with a wrong user name or password.", prometheus.CounterValue, func(f *amqp.Figures) float64 { return float64(f.RefusedLogins) }),
}

// Describe names the metrics.
func (amqpCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range amqpFigures {
		ch <- f.desc
	}
}

// Collect reads the figures.
func (c amqpCollector) Collect(ch chan<- prometheus.Metric) {
	now := c.door.Figures()
	for _, f := range amqpFigures {
		ch <- prometheus.MustNewConstMetric(f.desc, f.kind, f.of(&now))
	}
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
