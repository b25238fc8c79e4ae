package server

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/surgetank/surgetank/sink"
)

// sinkCollector reports the state and counters of each sink at each scrape. Its labels are the
// names of sinks, which only administrators choose, and the states, which are few.
type sinkCollector struct{ manager *sink.Manager }

// sinkScrapeTime limits how long a scrape waits for the broker.
const sinkScrapeTime = 5 * time.Second

// sinkFigure is one metric of a sink.
type sinkFigure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*sink.Info) float64
}

func newSinkFigure(name, help string, kind prometheus.ValueType, of func(*sink.Info) float64) sinkFigure {
	return sinkFigure{prometheus.NewDesc("surgetank_sink_"+name, help, []string{"sink"}, nil), kind, of}
}

var (
	sinkState   = prometheus.NewDesc("surgetank_sink_state", "1 for the sink's state, 0 for each other state.", []string{"sink", "state"}, nil)
	sinkFigures = []sinkFigure{
		newSinkFigure("applied_total", "Messages whose rows are committed.", prometheus.CounterValue, func(i *sink.Info) float64 { return float64(i.Applied) }),
		newSinkFigure("parked_total", "Messages that were parked because the target rejected their rows.", prometheus.CounterValue, func(i *sink.Info) float64 { return float64(i.Parked) }),
		newSinkFigure("duplicates_total", "Messages that were skipped, because their rows were committed before a second delivery.", prometheus.CounterValue, func(i *sink.Info) float64 { return float64(i.Duplicates) }),
		newSinkFigure("batches_total", "Committed batches.", prometheus.CounterValue, func(i *sink.Info) float64 { return float64(i.Batches) }),
		newSinkFigure("retries_total", "Batches that were tried again.", prometheus.CounterValue, func(i *sink.Info) float64 { return float64(i.Retries) }),
		newSinkFigure("opens_total", "How often the sink opened its target.", prometheus.CounterValue, func(i *sink.Info) float64 { return float64(i.Opens) }),
		newSinkFigure("held", "Messages that the sink has leased and not settled.", prometheus.GaugeValue, func(i *sink.Info) float64 { return float64(i.Held) }),
		newSinkFigure("held_back", "Held-back messages: the target rejected their rows, and the sink tries them again.", prometheus.GaugeValue, func(i *sink.Info) float64 { return float64(i.HeldBack) }),
		newSinkFigure("batch_limit", "The largest number of messages in a batch. It is lower than batch.max after a batch was too large.", prometheus.GaugeValue, func(i *sink.Info) float64 { return float64(i.BatchLimit) }),
		newSinkFigure("last_commit_timestamp_seconds", "Time of the last commit. 0 if no batch was committed since the sink started.", prometheus.GaugeValue, func(i *sink.Info) float64 { return seconds(i.LastCommit) }),
		newSinkFigure("lag_messages", "Messages in the sink's queue, including leased ones.", prometheus.GaugeValue, func(i *sink.Info) float64 { return float64(i.Waiting) }),
		newSinkFigure("lag_seconds", "Age of the oldest message that waits in the sink's queue. While the sink holds messages back, leased messages count too.", prometheus.GaugeValue, func(i *sink.Info) float64 { return i.OldestAge }),
	}
)

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / float64(time.Second)
}

// Describe names the metrics.
func (sinkCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- sinkState
	for _, f := range sinkFigures {
		ch <- f.desc
	}
}

// Collect reads the figures. If the broker does not answer there are none, and surgetank_broker_up
// shows why.
func (c sinkCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), sinkScrapeTime)
	defer cancel()
	list, err := c.manager.Infos(ctx)
	if err != nil {
		return
	}
	for i := range list {
		info := &list[i]
		for _, state := range sink.States {
			value := 0.0
			if state == info.State {
				value = 1
			}
			ch <- prometheus.MustNewConstMetric(sinkState, prometheus.GaugeValue, value, info.Name, string(state))
		}
		for _, f := range sinkFigures {
			ch <- prometheus.MustNewConstMetric(f.desc, f.kind, f.of(info), info.Name)
		}
	}
}
