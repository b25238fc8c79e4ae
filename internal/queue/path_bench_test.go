package queue_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
)

// hotPath publishes, hands out and settles messages of one queue. A turn publishes 100 messages,
// settles the 100 oldest leases and hands out 100 messages. 5,000 messages wait, and 400 are leased.
// A turn lasts a millisecond of the machine's time.
type hotPath struct {
	r    *rig
	pubs []surgetank.Publishing
	msgs []queue.Incoming
	held []surgetank.Settlement
	next int // the number of the next message

	results []surgetank.PublishResult
	errs    []error

	// vary changes the message with number i before it is published; nil: all messages are equal.
	vary func(in *queue.Incoming, i int)
	// nack tells for each hand-out whether the consumer returns it; nil: all messages are acked.
	nack func(i int) bool
}

const (
	pathTurn   = 100
	pathCredit = 400
	pathWaits  = 5000
)

func newPath(config surgetank.QueueConfig, vary func(in *queue.Incoming, i int), nack func(i int) bool) *hotPath {
	p := &hotPath{r: newRig(), vary: vary, nack: nack}
	p.pubs, p.msgs = make([]surgetank.Publishing, pathTurn), make([]queue.Incoming, pathTurn)
	p.results, p.errs = make([]surgetank.PublishResult, pathTurn), make([]error, pathTurn)
	for i := range p.msgs {
		p.pubs[i] = surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: small}}
		p.msgs[i].Publishing = &p.pubs[i]
	}
	p.r.step(&queue.Declare{Name: "q", Config: config}, &queue.OpenEpoch{Epoch: 1})
	for range pathWaits / pathTurn {
		p.turn()
	}
	p.keep(p.r.step(&queue.Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: pathCredit}}}))
	for range 100 {
		p.turn()
	}
	if len(p.held) == 0 {
		panic("the queue delivers nothing")
	}
	return p
}

// turn runs one turn and returns how many messages were published.
func (p *hotPath) turn() int {
	if p.vary != nil {
		for i := range p.msgs {
			p.vary(&p.msgs[i], p.next)
			p.next++
		}
	}
	n := min(pathTurn, len(p.held))
	clear(p.results)
	p.r.now += int64(time.Millisecond)
	out := p.r.step(&queue.Publish{Msgs: p.msgs, Results: p.results}, &queue.Settle{Items: p.held[:n], Results: p.errs[:n]})
	for i := range n {
		if p.errs[i] != nil {
			panic(p.errs[i])
		}
	}
	p.held = append(p.held[:0], p.held[n:]...)
	p.keep(out)
	return len(p.msgs)
}

// keep notes the hand-outs of a turn, to settle them later.
func (p *hotPath) keep(out queue.Output) {
	p.released(out)
	for i := range out.Handouts {
		h := &out.Handouts[i]
		s := surgetank.Settlement{Receipt: surgetank.Receipt{Epoch: 1, ID: surgetank.MessageID{Queue: h.Queue.ID(), Seq: h.Seq}, Lease: h.Lease}}
		if p.nack != nil && p.nack(int(h.Lease)) {
			s.Op, s.Reason, s.Delay = surgetank.Nack, "deadlock detected", -1
		}
		p.held = append(p.held, s)
	}
}

// released tells the machine that the turn's hand-outs left the broker.
func (p *hotPath) released(out queue.Output) { p.r.m.Released(out.Turn, p.r.now) }

// run runs n turns and returns the processor time of a message in nanoseconds.
func (p *hotPath) run(n int) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start, done := cpuTime(), 0
	for range n {
		done += p.turn()
	}
	return float64(cpuTime()-start) / float64(done)
}

// BenchmarkHotPath measures a message of a queue without rules, and of a queue with groups.
// Two builds are compared by running their test binaries in turns.
func BenchmarkHotPath(b *testing.B) {
	for _, c := range []struct {
		name   string
		config surgetank.QueueConfig
		vary   func(*queue.Incoming, int)
	}{
		{"plain", surgetank.QueueConfig{}, nil},
		{"groups", surgetank.QueueConfig{}, grouped},
		{"strict", surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}}, grouped},
		{"fair", surgetank.QueueConfig{Group: surgetank.GroupConfig{Fair: true}}, grouped},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := newPath(c.config, c.vary, nil)
			b.ReportAllocs()
			b.ResetTimer()
			b.ReportMetric(p.run(b.N), "cpu-ns/msg")
		})
	}
}

// grouped gives a message one of 1000 groups.
func grouped(in *queue.Incoming, i int) { in.Message.Group = names[i*7%len(names)] }
