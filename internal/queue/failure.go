package queue

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// causes are the machine's own reasons why messages are returned. Their index is their number on
// disk. The number 0 marks a text from a consumer.
var causes = [...]string{1: causeLease, 2: causeGone, 3: causeNoRoom}

const (
	causeLease  = "the lease ended without an ack"
	causeGone   = "its consumer went away without an ack"
	causeNoRoom = "it was given up, and its dead-letter queue had no room"
)

func encodeCause(b []byte, detail string) []byte {
	if i := slices.Index(causes[1:], detail); i >= 0 {
		return append(b, byte(i+1))
	}
	return appendString(append(b, 0), detail)
}

func (d *decoder) cause() string {
	switch c := d.byte(); {
	case c == 0:
		return d.string()
	case int(c) < len(causes):
		return causes[c]
	default:
		d.fail("the reason why a message came back is unknown (a newer version wrote it?)")
		return ""
	}
}

// The broker keeps the reason of each returned message, for users who look at the message. Equal
// texts are kept once. Memory is limited: above maxFailures messages or maxFailureBytes of texts, a
// new reason is stored in the log only.
const (
	maxFailure      = 256 // bytes of one reason
	maxFailures     = 100_000
	maxFailureBytes = 8 << 20
)

// failures contains the reasons of all queues' messages. It is durable state.
type failures struct {
	texts map[string]*keptReason
	count int // messages with a reason
	bytes int // bytes of texts
}

type keptReason struct {
	text     string
	messages int
}

// setFailure keeps the reason why a message was returned; "" removes it.
func (q *Queue) setFailure(seq uint64, text string) {
	fs := &q.m.failures
	if old := q.failed[seq]; old != nil {
		if old.text == text {
			return
		}
		delete(q.failed, seq)
		fs.drop(old)
	}
	if text == "" {
		return
	}
	f := fs.texts[text]
	if fs.count >= maxFailures || f == nil && fs.bytes+len(text) > maxFailureBytes {
		return
	}
	if f == nil {
		f = &keptReason{text: strings.Clone(text)}
		if fs.texts == nil {
			fs.texts = map[string]*keptReason{}
		}
		fs.texts[f.text] = f
		fs.bytes += len(text)
	}
	f.messages++
	fs.count++
	if q.failed == nil {
		q.failed = map[uint64]*keptReason{}
	}
	q.failed[seq] = f
}

func (fs *failures) drop(f *keptReason) {
	fs.count--
	if f.messages--; f.messages == 0 {
		delete(fs.texts, f.text)
		fs.bytes -= len(f.text)
	}
}

// forgetFailure removes the reason of a message that leaves the queue.
func (q *Queue) forgetFailure(seq uint64) {
	if f := q.failed[seq]; f != nil {
		delete(q.failed, seq)
		q.m.failures.drop(f)
	}
}

// forgetFailures removes all reasons of a deleted queue.
func (q *Queue) forgetFailures() {
	// unordered: sums
	for _, f := range q.failed {
		q.m.failures.drop(f)
	}
	q.failed = nil
}

// failureOf returns why a message was returned last, or "" if the reason is not known.
func (q *Queue) failureOf(seq uint64) string {
	if f := q.failed[seq]; f != nil {
		return f.text
	}
	return ""
}

// clipTo shortens a text to at most n bytes, between two characters.
func clipTo(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n -= len("...")
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}

// failedMessage is a message and the reason of its last return, for a snapshot.
type failedMessage struct {
	seq  uint64
	text string
}

func (q *Queue) failedMessages() []failedMessage {
	list := make([]failedMessage, 0, len(q.failed))
	for _, seq := range slices.Sorted(maps.Keys(q.failed)) {
		list = append(list, failedMessage{seq, q.failed[seq].text})
	}
	return list
}

// encodeFailures encodes a part of a queue's failed messages. Each text is written once.
func encodeFailures(queue uint64, list []failedMessage) []byte {
	b := appendUint([]byte{byte(kindSnapFailures)}, queue)
	index := map[string]uint64{}
	var texts []string
	for _, x := range list {
		if _, ok := index[x.text]; !ok {
			index[x.text] = uint64(len(texts))
			texts = append(texts, x.text)
		}
	}
	b = appendUint(b, uint64(len(texts)))
	for _, t := range texts {
		b = encodeCause(b, t)
	}
	b = appendUint(b, uint64(len(list)))
	for _, x := range list {
		b = appendUint(b, x.seq)
		b = appendUint(b, index[x.text])
	}
	return b
}

// restoreFailures decodes the output of encodeFailures. The queue's messages must have been
// restored.
func (q *Queue) restoreFailures(d *decoder) {
	var texts []string
	for n := d.count(); n > 0 && d.err == nil; n-- {
		texts = append(texts, d.cause())
	}
	for n := d.count(); n > 0 && d.err == nil; n-- {
		seq, i := d.uint(), d.uint()
		if i >= uint64(len(texts)) {
			d.fail("the reason of a returned message is missing")
			return
		}
		if s := q.slots.get(seq); s != nil && s.live() {
			q.setFailure(seq, texts[i])
		}
	}
}
