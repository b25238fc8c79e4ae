package server

import "github.com/prometheus/client_golang/prometheus"

// figure is one metric that is read from a T at each scrape.
type figure[T any] struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*T) float64
}

// gauge makes a metric that can fall, and counter one that only grows.
func gauge[T any](name, help string, of func(*T) float64, labels ...string) figure[T] {
	return figure[T]{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue, of}
}

func counter[T any](name, help string, of func(*T) float64, labels ...string) figure[T] {
	return figure[T]{prometheus.NewDesc(name, help, labels, nil), prometheus.CounterValue, of}
}

// figures are the metrics of a T.
type figures[T any] []figure[T]

func (fs figures[T]) describe(ch chan<- *prometheus.Desc) {
	for _, f := range fs {
		ch <- f.desc
	}
}

// collect reads the metrics of one T. labels are the values of their labels.
func (fs figures[T]) collect(ch chan<- prometheus.Metric, from *T, labels ...string) {
	for _, f := range fs {
		ch <- prometheus.MustNewConstMetric(f.desc, f.kind, f.of(from), labels...)
	}
}
