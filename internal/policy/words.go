package policy

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/settings"
)

// The settings of a policy come in two vocabularies, which may be mixed. One is the settings of
// queues in the configuration file (nested maps, "retry: {max_attempts: 5}"), the other is the keys
// of RabbitMQ's policies.

// Door is the part of a policy that a door carries out.
type Door struct {
	Expires          time.Duration // an unused queue is deleted after this time; 0: never
	HasDeadLetter    bool
	DeadLetter       string // exchange
	HasDeadLetterKey bool
	DeadLetterKey    string
	Overflow         string        // unchanged text; "" if the policy does not set it
	AckTimeout       time.Duration // 0: the server's timeout
	Backoff          bool          // returned messages wait before they are retried
	Breaker          bool          // level.breaker is given, and not off
	HasAlternate     bool
	Alternate        string // exchange
}

// rules are the parsed settings of a policy.
type rules struct {
	config   surgetank.QueueConfig // dead_letter is without its virtual host
	given    map[string]bool       // paths of the settings of config that the policy sets
	door     Door
	dropHead bool // the oldest messages make room, and are dead-lettered if the queue has a target for dead letters
}

const maxMillis = 315360000000 // ten years

// word is one of RabbitMQ's keys.
type word struct {
	key   string
	is    string // path of the equivalent queue setting; "" if a door carries it out
	least int64
	most  int64 // highest value; 0: the value is text
	read  func(r *rules, n int64, s string) error
}

// words are the words of settings.Table, with the exceptions in values, and the doors' words.
var words = append(queueWords(), doorWords...)

// values has the meaning of numbers whose RabbitMQ word differs from the setting. Other words have
// the setting's value.
var values = map[string]struct {
	least, most int64
	read        func(c *surgetank.QueueConfig, n int64)
}{
	"message-ttl": {0, maxMillis, func(c *surgetank.QueueConfig, n int64) { c.TTL = max(millis(n), time.Millisecond) }}, // for a queue 0 means no TTL
	"delivery-limit": {-1, 1<<30 - 1, func(c *surgetank.QueueConfig, n int64) {
		if c.Retry.MaxAttempts = int(n) + 1; n < 0 {
			c.Retry.MaxAttempts = -1 // no limit
		}
	}},
}

func queueWords() []word {
	var list []word
	for i := range settings.Table {
		s := &settings.Table[i]
		if s.RabbitMQ == "" || s.RabbitMQ == "dead-letter-exchange" { // the door carries it out, and it excludes the setting
			continue
		}
		w := word{key: s.RabbitMQ, is: s.Path, least: 1, most: math.MaxInt64, read: func(r *rules, n int64, _ string) error { return s.Set(&r.config, n) }}
		if v, differs := values[s.RabbitMQ]; differs {
			w.least, w.most = v.least, v.most
			w.read = func(r *rules, n int64, _ string) error { v.read(&r.config, n); return nil }
		}
		list = append(list, w)
	}
	return list
}

var doorWords = []word{
	{"expires", "", 1, maxMillis, func(r *rules, n int64, _ string) error { r.door.Expires = millis(n); return nil }},
	{"consumer-timeout", "", 1, maxMillis, func(r *rules, n int64, _ string) error { r.door.AckTimeout = millis(n); return nil }},
	{"dead-letter-exchange", "dead_letter", 0, 0, func(r *rules, _ int64, s string) error {
		r.door.HasDeadLetter, r.door.DeadLetter = true, s
		return nil
	}},
	{"dead-letter-routing-key", "", 0, 0, func(r *rules, _ int64, s string) error {
		r.door.HasDeadLetterKey, r.door.DeadLetterKey = true, s
		return nil
	}},
	{"dead-letter-strategy", "", 0, 0, func(_ *rules, _ int64, s string) error {
		if s != "at-most-once" && s != "at-least-once" {
			return bad("dead-letter-strategy", "want at-most-once or at-least-once; dead letters are never lost on their way here, so both do the same")
		}
		return nil
	}},
	{"alternate-exchange", "", 0, 0, func(r *rules, _ int64, s string) error {
		r.door.HasAlternate, r.door.Alternate = true, s
		return nil
	}},
}

// overflowWords are RabbitMQ's values of "overflow", a key of both vocabularies.
var overflowWords = map[string]surgetank.Overflow{
	"drop-head": surgetank.OverflowDropOldest, "reject-publish": surgetank.OverflowReject, "reject-publish-dlx": surgetank.OverflowReject,
}

// idle are keys about replication and storage that have no effect on a single server. They are
// accepted, so that definitions written for a cluster can be loaded.
var idle = []string{"queue-mode", "queue-version", "queue-master-locator", "queue-leader-locator", "initial-cluster-size", "target-group-size", "max-in-memory-length", "max-in-memory-bytes",
	"ha-mode", "ha-params", "ha-sync-mode", "ha-sync-batch-size", "ha-promote-on-shutdown", "ha-promote-on-failure"}

// refused are keys of RabbitMQ's policies that no policy can set here, with the reason. Settings of
// queues define themselves whether a policy can set them.
var refused = map[string]string{
	"federation-upstream":     "this server has no federation",
	"federation-upstream-set": "this server has no federation",
	"max-age":                 "this server has no streams",
}

// Keys lists what a policy can set, queue settings first.
func Keys() []string {
	var list []string
	for i := range settings.Table {
		if settings.Table[i].NoPolicy == "" {
			list = append(list, settings.Table[i].Path)
		}
	}
	for _, w := range words {
		list = append(list, w.key)
	}
	return list
}

func millis(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// parseSettings reads a policy's settings. Errors name the key by its path in "settings".
func parseSettings(tree map[string]any) (r rules, err error) {
	r.given = map[string]bool{}
	if len(tree) == 0 {
		return r, bad("", "there are none; a policy without settings does nothing")
	}
	plain := maps.Clone(tree)
	from := map[string]string{} // setting → the key that set it
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		v := tree[key]
		why := refused[key]
		if s := settings.Find(key); s != nil && s.NoPolicy != "" {
			why = s.NoPolicy
		}
		if why != "" {
			return r, bad(key, "a policy cannot set it: %s", why)
		}
		if slices.Contains(idle, key) {
			delete(plain, key)
			continue
		}
		if key == "overflow" {
			if err := r.overflow(v, plain); err != nil {
				return r, err
			}
			continue
		}
		i := slices.IndexFunc(words, func(w word) bool { return w.key == key })
		if i < 0 {
			continue
		}
		delete(plain, key)
		if err := r.word(&words[i], v); err != nil {
			return r, err
		}
		if is := words[i].is; is != "" {
			from[is] = key
		}
	}
	own, err := settings.Decode(plain)
	if err != nil {
		return r, below(err)
	}
	for _, path := range pathsIn(plain, "") {
		if other := from[path]; other != "" {
			return r, bad(path, "it is the same setting as %s; keep one of them", other)
		}
		settings.Find(path).Copy(&r.config, &own)
		r.given[path] = true
	}
	r.door.Backoff = r.given["retry.initial"] && r.config.Retry.Initial > 0
	r.door.Breaker = r.given["level.breaker"] && r.config.Level.Breaker != surgetank.BreakerOff
	for path := range from {
		if path != "dead_letter" { // this one is carried out by a door
			r.given[path] = true
		}
	}
	return r, nil
}

func (r *rules) word(w *word, v any) error {
	if w.most == 0 {
		s, ok := v.(string)
		if !ok || len(s) > surgetank.MaxNameLen {
			return bad(w.key, "want the text of a name")
		}
		return w.read(r, 0, s)
	}
	n, ok := whole(v)
	if !ok || n < w.least || n > w.most {
		return bad(w.key, "want a whole number of at least %d, and at most %d", w.least, w.most)
	}
	return w.read(r, n, "")
}

// overflow reads RabbitMQ's words, and leaves the queue's own words to the settings of queues.
func (r *rules) overflow(v any, plain map[string]any) error {
	s, _ := v.(string)
	o, is := overflowWords[s]
	if !is {
		return nil
	}
	delete(plain, "overflow")
	r.config.Overflow, r.given["overflow"] = o, true
	r.door.Overflow = s
	r.dropHead = s == "drop-head"
	return nil
}

// whole reads a whole number as decoders of YAML and JSON return it.
func whole(v any) (int64, bool) {
	switch n := v.(type) {
	case int:
		return int64(n), true
	case int64:
		return n, true
	case uint64:
		return int64(n), n <= math.MaxInt64
	case float64:
		return int64(n), n == math.Trunc(n) && math.Abs(n) < 1<<53
	case interface{ Int64() (int64, error) }: // json.Number
		i, err := n.Int64()
		return i, err == nil
	}
	return 0, false
}

// pathsIn lists the leaves of a tree of settings that was decoded without an error.
func pathsIn(tree map[string]any, prefix string) []string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		if inner, ok := tree[key].(map[string]any); ok && settings.Find(prefix+key) == nil {
			list = append(list, pathsIn(inner, prefix+key+".")...)
		} else {
			list = append(list, prefix+key)
		}
	}
	return list
}

const inSettings = "settings"

func bad(key, why string, args ...any) error {
	field := strings.TrimSuffix(inSettings+"."+key, ".")
	return surgetank.FieldErrorf(field, "%s: %s", field, fmt.Sprintf(why, args...))
}

// below adds "settings" to the path in an error.
func below(err error) error {
	var e *surgetank.Error
	if !errors.As(err, &e) || e.Field == "" {
		return err
	}
	c := *e
	c.Field, c.Message = inSettings+"."+e.Field, inSettings+"."+e.Message
	return &c
}
