package translate

import (
	"slices"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/fullname"
)

// death is one event in x-death: a message left a queue for its dead-letter exchange.
type death struct {
	queue, reason string
	exchange      string // exchange of the publish before the death
	keys          []string
	time          time.Time
	expiration    string // the message's expiration, "" for none
}

var deathReasons = map[string]string{
	surgetank.ReasonRejected: "rejected",
	surgetank.ReasonExpired:  "expired",
	surgetank.ReasonOverflow: "maxlen",
	surgetank.ReasonAttempts: "delivery_limit",
}

// DeathsOf returns the dead-letter history of a delivery in x-death's words, oldest first. The
// message was published to exchange.
func DeathsOf(d *surgetank.Delivery, exchange string, p *wire.Properties) []death {
	list := make([]death, 0, len(d.Deaths))
	for _, e := range slices.Backward(d.Deaths) {
		_, name := fullname.Split(e.Queue)
		ev := death{queue: name, reason: deathReasons[e.Reason], exchange: exchange, time: e.Time,
			keys: RoutingKeys(d.Key, p.Headers), expiration: string(p.Expiration)}
		if ev.reason == "" {
			ev.reason = e.Reason
		}
		list = append(list, ev)
	}
	return list
}

// RoutingKeys returns a message's own routing key and the keys of its CC header.
func RoutingKeys(key string, headers wire.Table) []string {
	keys := []string{key}
	if v, ok := headers.Get("CC"); ok {
		if more, err := appendKeys(keys, "CC", v); err == nil {
			keys = more
		}
	}
	return keys
}

// deathEntry is one table in an x-death header.
type deathEntry struct {
	queue, reason string
	count         int64
	table         wire.Table
}

func readDeaths(headers wire.Table) []deathEntry {
	v, _ := headers.Get("x-death")
	list, _ := v.Array()
	var entries []deathEntry
	for e := range list.All() {
		t, ok := e.Table()
		if !ok {
			continue
		}
		en := deathEntry{table: t}
		for name, v := range t.All() {
			switch string(name) {
			case "queue":
				en.queue = string(v.Data)
			case "reason":
				en.reason = string(v.Data)
			case "count":
				en.count, _ = v.Int()
			}
		}
		entries = append(entries, en)
	}
	return entries
}

// WithDeaths returns headers with events, oldest first, added to x-death and its companions. ours
// says that this door wrote the existing x-death. A client's x-death is a forgery and is replaced.
func WithDeaths(headers wire.Table, ours bool, events []death) wire.Table {
	var entries []deathEntry
	if ours {
		entries = readDeaths(headers)
	}
	for _, ev := range events {
		at := slices.IndexFunc(entries, func(e deathEntry) bool { return e.queue == ev.queue && e.reason == ev.reason })
		if at >= 0 { // a repeated death: count it, and move its entry to the front
			e := entries[at]
			e.count++
			entries = slices.Insert(slices.Delete(entries, at, at+1), 0, e)
			continue
		}
		t := wire.Table(nil).AddString("reason", ev.reason).AddString("queue", ev.queue).
			AddTime("time", ev.time).AddString("exchange", ev.exchange)
		keys := wire.Array(nil)
		for _, k := range ev.keys {
			keys = keys.AddString(k)
		}
		t = t.AddArray("routing-keys", keys)
		if ev.expiration != "" {
			t = t.AddString("original-expiration", ev.expiration)
		}
		entries = slices.Insert(entries, 0, deathEntry{ev.queue, ev.reason, 1, t})
	}
	list := wire.Array(nil)
	for _, e := range entries {
		t := wire.Table(nil).AddInt("count", e.count)
		t = append(t, e.table.Without(func(n []byte) bool { return string(n) == "count" })...)
		list = list.AddTable(t)
	}
	out := headers.Without(func(n []byte) bool {
		s := string(n)
		return s == "x-death" || isLastDeath(s) || !ours && isFirstDeath(s)
	})
	out = append(wire.Table(nil), out...).AddArray("x-death", list)
	if len(events) == 0 {
		return out
	}
	if first := events[0]; !ours {
		out = out.AddString("x-first-death-exchange", first.exchange).
			AddString("x-first-death-queue", first.queue).AddString("x-first-death-reason", first.reason)
	}
	last := events[len(events)-1]
	return out.AddString("x-last-death-exchange", last.exchange).
		AddString("x-last-death-queue", last.queue).AddString("x-last-death-reason", last.reason)
}

func isFirstDeath(s string) bool {
	return s == "x-first-death-exchange" || s == "x-first-death-queue" || s == "x-first-death-reason"
}

func isLastDeath(s string) bool {
	return s == "x-last-death-exchange" || s == "x-last-death-queue" || s == "x-last-death-reason"
}

// DeathCycle reports whether a dead letter would cycle forever if it were moved to queue. headers
// have its x-death, with the newest event. A message cycles if it has died in queue before and
// nothing was rejected since.
func DeathCycle(headers wire.Table, queue string) bool {
	for _, e := range readDeaths(headers) {
		if e.reason == "rejected" {
			return false
		}
		if e.queue == queue {
			return true
		}
	}
	return false
}
