package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/surgetank/surgetank/embedded"
)

// stateCollector reports the broker's state at each scrape.
type stateCollector struct{ broker *embedded.Broker }

var (
	brokerState    = prometheus.NewDesc("surgetank_broker_state", "1 for the broker's present state, otherwise 0.", []string{"state"}, nil)
	brokerOpenings = prometheus.NewDesc("surgetank_broker_openings_total", "Openings of the log by this server, the first one included.", nil, nil)
)

// shownStates are the values of the label state.
var shownStates = []embedded.State{embedded.StateOpening, embedded.StateServing, embedded.StateFollowing, embedded.StateFailed}

// Describe names the metrics.
func (stateCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- brokerState
	ch <- brokerOpenings
}

// Collect reads the figures.
func (c stateCollector) Collect(ch chan<- prometheus.Metric) {
	h := c.broker.Health()
	for _, state := range shownStates {
		is := 0.0
		if h.State == state {
			is = 1
		}
		ch <- prometheus.MustNewConstMetric(brokerState, prometheus.GaugeValue, is, string(state))
	}
	ch <- prometheus.MustNewConstMetric(brokerOpenings, prometheus.CounterValue, float64(h.Reopenings+1))
}
