package shards

import (
	"context"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// A publish to queues of several shards is split. Each shard stores its part with a sync of its
// own, and the answer waits for all. A message for queues of several shards is confirmed when all
// its shards stored it. If only some did, its result is the error of the others. If the publisher
// repeats the message with its number or its dedup id, each shard stores only its missing part.
//
// Each shard remembers publishers' numbers for itself, and a new publisher begins with number 1. So
// the router makes a publisher's first message known to the other shards: it sends them a message
// with number 1 for a queue that cannot exist. They refuse that message and remember the publisher.

// nowhere is the name of a queue that cannot exist, for the introduction of a publisher.
const nowhere = "\x00"

// Publish stores messages. See surgetank.Broker.
func (b *Broker) Publish(ctx context.Context, msgs []surgetank.Publishing) ([]surgetank.PublishResult, error) {
	if b == nil || ctx == nil {
		return nil, noBroker(b)
	}
	if i, ok := b.single(msgs); ok {
		p, err := b.part(i)
		if err != nil {
			return nil, err
		}
		return p.Publish(ctx, msgs)
	}
	return wait(ctx, func(done func([]surgetank.PublishResult, error)) error { return b.publish(ctx, msgs, done) })
}

// PublishAsync sends messages to their shards. See surgetank.Broker.
func (b *Broker) PublishAsync(ctx context.Context, msgs []surgetank.Publishing, done func([]surgetank.PublishResult, error)) error {
	switch {
	case b == nil || ctx == nil:
		return noBroker(b)
	case done == nil:
		return surgetank.FieldErrorf("done", "the function done is nil; pass one, or call Publish, which waits")
	}
	if i, ok := b.single(msgs); ok {
		p, err := b.part(i)
		if err != nil {
			return err
		}
		return p.PublishAsync(ctx, msgs, done)
	}
	return b.publish(ctx, msgs, done)
}

// single returns the shard of all queues of all messages, if there is one and no publisher is new.
func (b *Broker) single(msgs []surgetank.Publishing) (shard int, ok bool) {
	if len(msgs) == 0 {
		return 0, false // its answer says that the earlier calls are durable, in all shards
	}
	d := &b.dir
	d.mu.RLock()
	defer d.mu.RUnlock()
	shard = -1
	for i := range msgs {
		if msgs[i].Sequence == 1 && msgs[i].Publisher != "" {
			return 0, false
		}
		for _, name := range msgs[i].Queues {
			at, known := d.locateLocked(name)
			if !known || shard >= 0 && at != shard {
				return 0, false
			}
			shard = at
		}
	}
	return max(shard, 0), true
}

// split is a publish to several shards.
type split struct {
	b     *Broker
	msgs  []surgetank.Publishing
	parts []publishPart
	done  func([]surgetank.PublishResult, error)

	mu       sync.Mutex
	left     int // parts that have not answered
	answered int // parts that answered with results
	failed   error
	results  []surgetank.PublishResult
}

// publishPart is the part of one shard. of[i] is the index of msgs[i] in the whole publish; -1 for
// an introduction.
type publishPart struct {
	shard int
	msgs  []surgetank.Publishing
	of    []int
}

func (b *Broker) publish(ctx context.Context, msgs []surgetank.Publishing, done func([]surgetank.PublishResult, error)) error {
	s := &split{b: b, msgs: msgs, done: done, results: make([]surgetank.PublishResult, len(msgs))}
	for i := range s.results {
		s.results[i].Duplicate = true
	}
	of := make(map[int]int, len(b.parts)) // index in parts by shard
	add := func(shard int, p surgetank.Publishing, i int) {
		at, ok := of[shard]
		if !ok {
			at = len(s.parts)
			of[shard] = at
			s.parts = append(s.parts, publishPart{shard: shard})
		}
		part := &s.parts[at]
		part.msgs, part.of = append(part.msgs, p), append(part.of, i)
	}
	if len(msgs) == 0 {
		for i := range b.parts {
			s.parts = append(s.parts, publishPart{shard: i})
		}
	}
	for i := range msgs {
		b.divide(&msgs[i], i, s, add)
	}
	s.left = len(s.parts) + 1 // this function counts, too, so that done is not called before it ends
	accepted := 0
	var first error
	for i := range s.parts {
		if err := s.send(ctx, &s.parts[i]); err != nil {
			s.enter(&s.parts[i], nil, err)
			s.leave()
			if first == nil {
				first = err
			}
			continue
		}
		accepted++
	}
	if accepted == 0 && first != nil {
		return first
	}
	if s.leave() {
		b.calls.Apart("PublishAsync's done", s.finish)
	}
	return nil
}

// divide adds one message to the parts of its shards.
func (b *Broker) divide(p *surgetank.Publishing, i int, s *split, add func(int, surgetank.Publishing, int)) {
	var shards [door.MaxShards][]string
	used := uint64(0)
	var unknown []string
	for _, name := range p.Queues {
		at, ok := b.dir.locate(name)
		if !ok {
			if err := b.missing(name); err != nil {
				s.results[i].Err = err
			}
			unknown = append(unknown, name)
			continue
		}
		shards[at] = append(shards[at], name)
		used |= 1 << at
	}
	if s.results[i].Err != nil {
		return
	}
	if used == 0 { // a message without a queue; the shard refuses it
		used = 1
	}
	for at := range len(b.parts) {
		if used&(1<<at) != 0 {
			own := *p
			// Every shard refuses the unknown queues, so a numbered message is stored in none.
			own.Queues = append(shards[at], unknown...)
			add(at, own, i)
		} else if p.Sequence == 1 && p.Publisher != "" {
			add(at, surgetank.Publishing{Queues: []string{nowhere}, Publisher: p.Publisher, Sequence: 1}, -1)
		}
	}
}

// send sends a part to its shard.
func (s *split) send(ctx context.Context, part *publishPart) error {
	p, err := s.b.part(part.shard)
	if err != nil {
		return err
	}
	return p.PublishAsync(ctx, part.msgs, func(r []surgetank.PublishResult, err error) { s.answer(part, r, err) })
}

// answer enters the answer of a part. The last answer completes the publish.
func (s *split) answer(part *publishPart, r []surgetank.PublishResult, err error) {
	s.enter(part, r, err)
	if s.leave() {
		s.finish()
	}
}

// enter combines the results of a part with those of the other parts.
func (s *split) enter(part *publishPart, r []surgetank.PublishResult, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.answered++
	} else if s.failed == nil {
		s.failed = err
	}
	for i, of := range part.of {
		if of < 0 {
			continue // a shard that does not know the publisher refuses its later numbers
		}
		res := &s.results[of]
		one := surgetank.PublishResult{Err: err}
		if err == nil {
			one = r[i]
		}
		if res.Err == nil {
			res.Err = one.Err
		}
		res.Duplicate = res.Duplicate && one.Duplicate
		if first := s.msgs[of].Queues; one.ID.Seq != 0 && (res.ID.Seq == 0 || len(first) > 0 && part.msgs[i].Queues[0] == first[0]) {
			res.ID = one.ID
		}
	}
}

// leave ends a part. It returns true for the last part.
func (s *split) leave() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left--
	return s.left == 0
}

// finish calls done.
func (s *split) finish() {
	if s.answered == 0 && s.failed != nil {
		s.done(nil, s.failed)
		return
	}
	for i := range s.results {
		res := &s.results[i]
		res.Duplicate = res.Duplicate && res.Err == nil
	}
	s.done(s.results, nil)
}

// wait turns a call with a callback into a blocking call.
func wait[T any](ctx context.Context, start func(func(T, error)) error) (T, error) {
	type answer struct {
		v   T
		err error
	}
	c := make(chan answer, 1)
	var none T
	if err := start(func(v T, err error) { c <- answer{v, err} }); err != nil {
		return none, err
	}
	select {
	case a := <-c:
		return a.v, a.err
	case <-ctx.Done():
		return none, surgetank.Errorf(surgetank.CodeUncertain, "the call was given up before its outcome was known: %w", ctx.Err())
	}
}

func noBroker(b *Broker) error {
	if b == nil {
		return surgetank.Errorf(surgetank.CodeClosed, "the broker was not opened; make one with embedded.Open")
	}
	return surgetank.FieldErrorf("ctx", "the context is nil; pass one, such as context.Background()")
}
