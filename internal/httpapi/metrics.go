package httpapi

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
)

// maxQueueSeries is how many queues have series of their own. The other queues, those with the
// smallest backlogs, are summed under the name "". So clients that create queues cannot overload a
// monitoring system.
const maxQueueSeries = 1000

// scrapeTimeout limits how long a scrape waits for the broker.
const scrapeTimeout = 5 * time.Second

// metrics counts requests, and collects the figures of queues for each scrape.
type metrics struct {
	handler       http.Handler
	requests      *prometheus.CounterVec
	seconds       *prometheus.HistogramVec
	refusedLogins prometheus.Counter
}

// liveHeap adds go_gc_heap_live_bytes to the standard metrics: the memory that was live at the last
// collection. It shows a leak, while the heap's size is mostly garbage.
var liveHeap = collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/gc/heap/live:bytes$`)}

func newMetrics(a *API) *metrics {
	registry := prometheus.NewRegistry()
	m := &metrics{
		handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{DisableCompression: true, MaxRequestsInFlight: 4, Timeout: 2 * scrapeTimeout}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "surgetank_http_requests_total",
			Help: "Answered requests, by route, method and status."}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "surgetank_http_request_seconds",
			Help:    "Time from the end of a request's headers to the end of its answer, by route. It contains the wait of long polls.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5, 30}}, []string{"route"}),
		refusedLogins: prometheus.NewCounter(prometheus.CounterOpts{Name: "surgetank_http_refused_logins_total",
			Help: "Requests with a wrong user name or password."}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "surgetank_build_info", Help: "Always 1. The label has the server's version.",
		ConstLabels: prometheus.Labels{"version": a.opts.Version}})
	build.Set(1)
	registry.MustRegister(m.requests, m.seconds, m.refusedLogins, build, &queueCollector{a},
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(liveHeap)), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "surgetank_http_body_bytes", Help: "Bytes of request bodies in memory."},
			func() float64 { return float64(a.bodies.used.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "surgetank_http_answer_bytes", Help: "Bytes of messages in answers that are not sent yet."},
			func() float64 { return float64(a.answers.used.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "surgetank_http_subscriptions", Help: "Open subscriptions over HTTP."},
			func() float64 { return float64(a.subs.count()) }))
	registry.MustRegister(a.opts.Collectors...)
	return m
}

// observe counts a request. Labels have few values: only the router's routes, and one value for all
// unusual methods.
func (m *metrics) observe(c *call, took time.Duration) {
	method := c.r.Method
	if !slices.Contains([]string{"GET", "HEAD", "PUT", "POST", "DELETE"}, method) {
		method = "other"
	}
	m.requests.WithLabelValues(c.pattern(), method, strconv.Itoa(c.w.status)).Inc()
	m.seconds.WithLabelValues(c.pattern()).Observe(took.Seconds())
}

// showMetrics writes all metrics in Prometheus' text format.
func (c *call) showMetrics() error {
	c.api.metrics.handler.ServeHTTP(c.w, c.r)
	return nil
}

// queueCollector reads the broker's queues at each scrape.
type queueCollector struct{ api *API }

// figure is one metric of a queue.
type figure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*surgetank.QueueInfo) float64
}

func newFigure(name, help string, kind prometheus.ValueType, of func(*surgetank.QueueInfo) float64, labels ...string) figure {
	return figure{desc: prometheus.NewDesc("surgetank_queue_"+name, help, append([]string{"vhost", "queue"}, labels...), nil), kind: kind, of: of}
}

var (
	gauge, counter  = prometheus.GaugeValue, prometheus.CounterValue
	messagesDesc    = prometheus.NewDesc("surgetank_queue_messages", "Stored messages, by state. Each message has one state.", []string{"vhost", "queue", "state"}, nil)
	oldestDesc      = prometheus.NewDesc("surgetank_queue_oldest_age_seconds", "Age of the oldest message that is ready or blocked. Leased and delayed messages and messages in back-off do not count.", []string{"vhost", "queue"}, nil)
	refusedByDesc   = prometheus.NewDesc("surgetank_queue_limit_refused_total", "Messages and consumers that a limit of the queue or the disk refused, by limit.", []string{"vhost", "queue", "limit"}, nil)
	levelLimitDesc  = prometheus.NewDesc("surgetank_queue_level_limit", "The adaptive limit in force. Only for queues with level.adaptive.", []string{"vhost", "queue"}, nil)
	breakerOpenDesc = prometheus.NewDesc("surgetank_queue_breaker_open", "0 if the target of the queue works, 1 during an outage, also while probes test the target and while the load grows again.", []string{"vhost", "queue"}, nil)
	openingsDesc    = prometheus.NewDesc("surgetank_queue_breaker_outages_total", "Outages of the target.", []string{"vhost", "queue"}, nil)
	refundsDesc     = prometheus.NewDesc("surgetank_queue_breaker_refunds_total", "Attempts that were returned, because the target was down.", []string{"vhost", "queue"}, nil)
	queuesDesc      = prometheus.NewDesc("surgetank_queues", "Number of queues.", nil, nil)
	upDesc          = prometheus.NewDesc("surgetank_broker_up", "1 if the broker answered this scrape, otherwise 0.", nil, nil)

	figures = []figure{
		newFigure("backing_off", "Delayed messages that failed and wait for their next try.", gauge, func(q *surgetank.QueueInfo) float64 { return float64(q.BackingOff) }),
		newFigure("bytes", "Bytes of the bodies of stored messages.", gauge, func(q *surgetank.QueueInfo) float64 { return float64(q.Bytes) }),
		newFigure("groups", "Groups that have messages.", gauge, func(q *surgetank.QueueInfo) float64 { return float64(q.Groups) }),
		newFigure("consumers", "Attached consumers.", gauge, func(q *surgetank.QueueInfo) float64 { return float64(q.Consumers) }),
		newFigure("published_total", "Messages that were confirmed to their publishers.", counter, func(q *surgetank.QueueInfo) float64 { return float64(q.Published) }),
		newFigure("duplicates_total", "Messages that were confirmed but not stored, because their dedup id or publisher's number was known.", counter, func(q *surgetank.QueueInfo) float64 { return float64(q.Duplicates) }),
		newFigure("refused_total", "Messages that were refused because the queue was at its limit or the disk was full.", counter, func(q *surgetank.QueueInfo) float64 { return float64(q.Refused) }),
		newFigure("delivered_total", "Deliveries of messages to consumers.", counter, func(q *surgetank.QueueInfo) float64 { return float64(q.Delivered) }),
		newFigure("acked_total", "Messages that were acked.", counter, func(q *surgetank.QueueInfo) float64 { return float64(q.Acked) }),
		newFigure("nacked_total", "Messages that were nacked.", counter, func(q *surgetank.QueueInfo) float64 { return float64(q.Nacked) }),
		newFigure("expired_total", "Messages that waited longer than their TTL.", counter, func(q *surgetank.QueueInfo) float64 { return float64(q.Expired) }),
		newFigure("dead_lettered_total", "Messages that were moved to a dead-letter queue.", counter, func(q *surgetank.QueueInfo) float64 { return float64(q.DeadLettered) }),
		newFigure("dropped_total", "Messages that a rule of the queue dropped.", counter, func(q *surgetank.QueueInfo) float64 { return float64(q.Dropped) }),
		newFigure("circled_total", "Dropped messages that dead-lettering would have moved to the same queue again, without a consumer in between. They also count in dropped_total.", counter, func(q *surgetank.QueueInfo) float64 { return float64(q.Circled) }),
		newFigure("coalesced_total", "Messages that were confirmed and not delivered, because another message with their coalescing key is delivered instead.", counter, func(q *surgetank.QueueInfo) float64 { return float64(q.Coalesced) }),
		newFigure("leases_lost_total", "Leases that ended at their deadline.", counter, func(q *surgetank.QueueInfo) float64 { return float64(q.LeasesLost) }),
	}
)

// Describe names the metrics.
func (qc *queueCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- messagesDesc
	ch <- oldestDesc
	ch <- refusedByDesc
	ch <- levelLimitDesc
	ch <- breakerOpenDesc
	ch <- openingsDesc
	ch <- refundsDesc
	ch <- queuesDesc
	ch <- upDesc
	for _, f := range figures {
		ch <- f.desc
	}
}

// Collect asks the broker. If the broker does not answer, the scrape reports that and shows the
// other metrics.
func (qc *queueCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(qc.api.base, scrapeTimeout)
	defer cancel()
	list, err := qc.api.opts.Broker.Queues(ctx)
	if err != nil && !door.IsPartial(err) { // the queues of the open shards are shown
		qc.api.opts.Logger.Warn("the broker did not answer a scrape", "error", err)
		ch <- prometheus.MustNewConstMetric(upDesc, gauge, 0)
		return
	}
	ch <- prometheus.MustNewConstMetric(upDesc, gauge, 1)
	ch <- prometheus.MustNewConstMetric(queuesDesc, gauge, float64(len(list)))
	backlog := func(q *surgetank.QueueInfo) int64 { return q.Ready + q.Blocked + q.Delayed + q.Leased + q.Damaged }
	slices.SortFunc(list, func(a, b surgetank.QueueInfo) int {
		if d := backlog(&b) - backlog(&a); d != 0 {
			return int(max(-1, min(1, d)))
		}
		return strings.Compare(a.Name, b.Name)
	})
	if len(list) > maxQueueSeries {
		rest := sum(list[maxQueueSeries:])
		list = append(list[:maxQueueSeries:maxQueueSeries], rest)
	}
	for i := range list {
		vhost, name := fullname.Split(list[i].Name)
		if list[i].Name == "" {
			vhost = ""
		}
		show(ch, &list[i], vhost, name)
	}
}

func show(ch chan<- prometheus.Metric, q *surgetank.QueueInfo, vhost, name string) {
	for _, s := range [...]struct {
		state surgetank.State
		n     int64
	}{{surgetank.StateReady, q.Ready}, {surgetank.StateBlocked, q.Blocked}, {surgetank.StateDelayed, q.Delayed}, {surgetank.StateLeased, q.Leased}, {surgetank.StateDamaged, q.Damaged}} {
		ch <- prometheus.MustNewConstMetric(messagesDesc, gauge, float64(s.n), vhost, name, string(s.state))
	}
	ch <- prometheus.MustNewConstMetric(oldestDesc, gauge, seconds(q.OldestAge), vhost, name)
	for _, r := range q.Refusals {
		ch <- prometheus.MustNewConstMetric(refusedByDesc, counter, float64(r.Count), vhost, name, r.Limit)
	}
	if l := q.Level; l != nil && l.Limit > 0 {
		ch <- prometheus.MustNewConstMetric(levelLimitDesc, gauge, float64(l.InForce), vhost, name)
	}
	if l := q.Level; l != nil && l.Breaker != "" {
		open := 0.0
		if l.Breaker != "closed" {
			open = 1
		}
		ch <- prometheus.MustNewConstMetric(breakerOpenDesc, gauge, open, vhost, name)
		ch <- prometheus.MustNewConstMetric(openingsDesc, counter, float64(l.Openings), vhost, name)
		ch <- prometheus.MustNewConstMetric(refundsDesc, counter, float64(l.Refunds), vhost, name)
	}
	for _, f := range figures {
		ch <- prometheus.MustNewConstMetric(f.desc, f.kind, f.of(q), vhost, name)
	}
}

// sum adds queues up into one queue without a name.
func sum(list []surgetank.QueueInfo) (t surgetank.QueueInfo) {
	for i := range list {
		q := &list[i]
		t.Ready += q.Ready
		t.Blocked += q.Blocked
		t.Delayed += q.Delayed
		t.Leased += q.Leased
		t.Damaged += q.Damaged
		t.BackingOff += q.BackingOff
		t.Bytes += q.Bytes
		t.OldestAge = max(t.OldestAge, q.OldestAge)
		t.Groups += q.Groups
		t.Consumers += q.Consumers
		t.Published += q.Published
		t.Duplicates += q.Duplicates
		t.Refused += q.Refused
		t.Delivered += q.Delivered
		t.Acked += q.Acked
		t.Nacked += q.Nacked
		t.Expired += q.Expired
		t.DeadLettered += q.DeadLettered
		t.Dropped += q.Dropped
		t.Circled += q.Circled
		t.Coalesced += q.Coalesced
		t.LeasesLost += q.LeasesLost
		for _, r := range q.Refusals {
			i := slices.IndexFunc(t.Refusals, func(o surgetank.Refusal) bool { return o.Limit == r.Limit })
			if i < 0 {
				i, t.Refusals = len(t.Refusals), append(t.Refusals, surgetank.Refusal{Limit: r.Limit})
			}
			t.Refusals[i].Count += r.Count
		}
	}
	return t
}
