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

var (
	sinkState   = prometheus.NewDesc("surgetank_sink_state", "1 for the sink's state, 0 for each other state.", []string{"sink", "state"}, nil)
	sinkFigures = figures[sink.Info]{
		counter("surgetank_sink_applied_total", "Messages whose rows are committed.", func(i *sink.Info) float64 { return float64(i.Applied) }, "sink"),
		counter("surgetank_sink_parked_total", "Messages that were parked because the target rejected their rows.", func(i *sink.Info) float64 { return float64(i.Parked) }, "sink"),
		counter("surgetank_sink_duplicates_total", "Messages that were skipped, because their rows were committed before a second delivery.", func(i *sink.Info) float64 { return float64(i.Duplicates) }, "sink"),
		counter("surgetank_sink_batches_total", "Committed batches.", func(i *sink.Info) float64 { return float64(i.Batches) }, "sink"),
		counter("surgetank_sink_retries_total", "Batches that were tried again.", func(i *sink.Info) float64 { return float64(i.Retries) }, "sink"),
		counter("surgetank_sink_opens_total", "How often the sink opened its target.", func(i *sink.Info) float64 { return float64(i.Opens) }, "sink"),
		gauge("surgetank_sink_held", "Messages that the sink has leased and not settled.", func(i *sink.Info) float64 { return float64(i.Held) }, "sink"),
		gauge("surgetank_sink_held_back", "Held-back messages: the target rejected their rows, and the sink tries them again.", func(i *sink.Info) float64 { return float64(i.HeldBack) }, "sink"),
		gauge("surgetank_sink_batch_limit", "The largest number of messages in a batch. It is lower than batch.max after a batch was too large.", func(i *sink.Info) float64 { return float64(i.BatchLimit) }, "sink"),
		gauge("surgetank_sink_level_limit", "The adaptive limit of lanes that write at the same time. 0 if the queue has no level.adaptive.", func(i *sink.Info) float64 {
			if i.Level == nil {
				return 0
			}
			return float64(i.Level.InForce)
		}, "sink"),
		gauge("surgetank_sink_last_commit_timestamp_seconds", "Time of the last commit. 0 if no batch was committed since the sink started.", func(i *sink.Info) float64 { return seconds(i.LastCommit) }, "sink"),
		gauge("surgetank_sink_lag_messages", "Messages in the sink's queue, including leased ones.", func(i *sink.Info) float64 { return float64(i.Waiting) }, "sink"),
		gauge("surgetank_sink_lag_seconds", "Age of the oldest message that waits in the sink's queue. While the sink holds messages back, leased messages count too.", func(i *sink.Info) float64 { return i.OldestAge }, "sink"),
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
	sinkFigures.describe(ch)
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
		sinkFigures.collect(ch, info, info.Name)
	}
}
