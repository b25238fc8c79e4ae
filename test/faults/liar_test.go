//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/surgetank/surgetank/test/kit/client"
	"github.com/surgetank/surgetank/test/kit/history"
)

// liar is a small in-memory server of the API that breaks one promise. The whole harness runs
// against it, to show that each promise is checked from the network to the verdict.
type liar struct {
	lie string

	mu     sync.Mutex
	queues map[string]*lyingQueue
	count  int // number of events so far at which the server could lie
}

type lyingQueue struct {
	number   int
	next     int
	waiting  []*lyingMessage
	leased   map[string]*lyingMessage
	receipts int
	dedup    map[string]string
}

type lyingMessage struct {
	id, group string
	body      json.RawMessage
	attempt   int
	notBefore time.Time
	deadline  time.Time
}

// now reports whether to tell this lie at this event: at one event in twenty.
func (l *liar) now(lie string) bool {
	if l.lie != lie {
		return false
	}
	l.count++
	return l.count%20 == 10
}

func (l *liar) queue(name string) *lyingQueue {
	q := l.queues[name]
	if q == nil {
		q = &lyingQueue{number: len(l.queues) + 1, leased: map[string]*lyingMessage{}, dedup: map[string]string{}}
		l.queues[name] = q
	}
	return q
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v1/queues/"), "/")
	q := l.queue(parts[0])
	q.expire()
	verb := r.Method
	if len(parts) > 1 {
		verb = parts[1]
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var answer any
	status := http.StatusOK
	switch verb {
	case "messages":
		answer, status = l.publish(q, body.Bytes())
	case "receive":
		var req struct {
			Max   int
			Lease string
		}
		_ = json.Unmarshal(body.Bytes(), &req) // the test's own client wrote it
		lease, _ := time.ParseDuration(req.Lease)
		answer = l.receive(q, req.Max, lease)
	case "ack", "nack", "extend":
		answer = l.settle(parts[0], q, verb, body.Bytes())
	default:
		n := len(q.waiting) + len(q.leased)
		if l.lie == "counts" {
			n = max(0, n-1)
		}
		answer = map[string]int{"ready": n}
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // the client may have left
}

func (l *liar) publish(q *lyingQueue, body []byte) (any, int) {
	var ids []string
	dups := 0
	in := bufio.NewScanner(bytes.NewReader(body))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var m struct {
			Body  json.RawMessage
			Group string
			Dedup string `json:"dedup_id"`
		}
		if err := json.Unmarshal(in.Bytes(), &m); err != nil {
			return map[string]string{"code": "invalid"}, http.StatusBadRequest
		}
		if id, known := q.dedup[m.Dedup]; known && m.Dedup != "" && l.lie != "dedup forgotten" {
			ids = append(ids, id)
			dups++
			continue
		}
		if !l.now("id given twice") {
			q.next++
		}
		x := &lyingMessage{id: fmt.Sprintf("%d-%d", q.number, q.next), group: m.Group, body: slices.Clone(m.Body)}
		q.dedup[m.Dedup] = x.id
		ids = append(ids, x.id)
		if l.now("bytes changed") {
			x.body = bytes.Replace(x.body, []byte(`"pad":"`), []byte(`"pad":"_`), 1)
		}
		if l.now("not stored") {
			continue
		}
		q.waiting = append(q.waiting, x)
		if l.now("refused but stored") {
			return map[string]string{"code": "full"}, http.StatusTooManyRequests
		}
	}
	return map[string]any{"ids": ids, "duplicates": dups}, http.StatusCreated
}

// expire ends leases that have lasted too long.
func (q *lyingQueue) expire() {
	for r, m := range q.leased {
		if time.Now().After(m.deadline) {
			delete(q.leased, r)
			q.waiting = slices.Insert(q.waiting, 0, m)
		}
	}
}

func (q *lyingQueue) busy(group string) bool {
	for _, m := range q.leased {
		if m.group == group && group != "" {
			return true
		}
	}
	return false
}

func (l *liar) receive(q *lyingQueue, most int, lease time.Duration) any {
	list := []client.Delivery{}
	blocked := map[string]bool{}
	for i := 0; i < len(q.waiting) && len(list) < most; {
		m := q.waiting[i]
		skip := blocked[m.group] || time.Now().Before(m.notBefore) || q.busy(m.group) && !l.now("group not kept")
		if m.group != "" && (skip || l.now("order not kept")) {
			if l.lie != "order not kept" {
				blocked[m.group] = true
			}
			skip = true
		}
		if skip {
			i++
			continue
		}
		q.receipts++
		m.attempt++
		receipt := fmt.Sprintf("%d.%d", q.number, q.receipts)
		m.deadline = time.Now().Add(lease)
		list = append(list, client.Delivery{ID: m.id, Receipt: receipt, Attempt: m.attempt, Redelivered: m.attempt > 1, Deadline: m.deadline, Group: m.group, Body: m.body})
		if l.now("lost on the way") {
			q.waiting = slices.Delete(q.waiting, i, i+1)
			continue
		}
		copied := *m
		q.leased[receipt] = &copied
		if l.now("leased twice") { // both leases are in one answer, so the first is certainly still live
			q.receipts++
			twice := list[len(list)-1]
			twice.Receipt = fmt.Sprintf("%d.%d", q.number, q.receipts)
			again := copied
			q.leased[twice.Receipt] = &again
			list = append(list, twice)
		}
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	return map[string]any{"messages": list}
}

func (l *liar) settle(name string, q *lyingQueue, verb string, body []byte) any {
	var req struct {
		Receipts   []string
		Delay      string
		DeadLetter bool `json:"dead_letter"`
	}
	_ = json.Unmarshal(body, &req) // the test's own client wrote it
	type result struct {
		OK   bool   `json:"ok"`
		Code string `json:"code"`
	}
	results := []result{}
	for _, r := range req.Receipts {
		m := q.leased[r]
		if m == nil {
			results = append(results, result{l.lie == "old receipts settle", history.CodeLeaseLost})
			continue
		}
		results = append(results, result{OK: true})
		if verb == "extend" {
			m.deadline = time.Now().Add(time.Second)
			continue
		}
		delete(q.leased, r)
		switch {
		case verb == "ack":
			if l.now("ack forgotten") {
				m.notBefore = time.Now().Add(30 * time.Millisecond)
				q.waiting = slices.Insert(q.waiting, 0, m)
			}
		case req.DeadLetter:
			if l.lie == "dead letter dropped" {
				continue
			}
			dead := l.queue(name + ".dead")
			dead.next++
			dead.waiting = append(dead.waiting, &lyingMessage{id: fmt.Sprintf("%d-%d", dead.number, dead.next), group: m.group, body: m.body})
		default:
			delay, _ := time.ParseDuration(req.Delay)
			m.notBefore = time.Now().Add(delay)
			q.waiting = slices.Insert(q.waiting, 0, m)
		}
	}
	return map[string]any{"results": results}
}

// TestLiarsAreCaught runs clients, journal and checkers against servers that break one promise
// each, and one correct server.
func TestLiarsAreCaught(t *testing.T) {
	for lie, want := range map[string]string{
		"":                    "",
		"not stored":          "lost",
		"lost on the way":     "unsettled",
		"refused but stored":  "refused",
		"bytes changed":       "damaged",
		"ack forgotten":       "redelivered",
		"id given twice":      "id reused",
		"order not kept":      "order",
		"group not kept":      "group in flight",
		"leased twice":        "two leases",
		"old receipts settle": "life cycle",
		"dedup forgotten":     "stored twice",
		"dead letter dropped": "dead letter lost",
	} {
		t.Run("lie: "+lie, func(t *testing.T) {
			t.Parallel()
			l := &liar{lie: lie, queues: map[string]*lyingQueue{}}
			s := httptest.NewServer(l)
			defer s.Close()
			j, err := history.Create("", t.Name(), 1)
			if err != nil {
				t.Fatal(err)
			}
			o := loadOptions{limit: 250, lease: 60 * time.Millisecond, size: 20, pause: time.Millisecond}
			load := newLoad(o, j, func() string { return s.URL }, 5, t.Logf)
			load.start(t.Context())
			load.pubs.Wait()
			drained, err := load.finish(t.Context(), 20*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			r := history.Check(&history.History{Ops: j.Ops(), Queues: checked, Drained: drained}, time.Minute)
			if want == "" {
				if r.Verdict() != history.Pass {
					t.Errorf("the honest server: %s %v %v", r.Verdict(), r.Findings, r.Unclear)
				}
				return
			}
			if !slices.ContainsFunc(r.Findings, func(f history.Finding) bool { return f.Check == want }) {
				t.Errorf("no %q among %d findings: %v", want, len(r.Findings), r.Findings[:min(5, len(r.Findings))])
			}
		})
	}
}
