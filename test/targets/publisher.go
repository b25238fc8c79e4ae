//go:build linux

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/surgetank/surgetank/test/kit/client"
	"github.com/surgetank/surgetank/test/targets/judge"
)

// most is the largest number of messages that one server gets in a round, and last the number of
// further messages at its end. One call of peek must be able to list all these messages.
const (
	most = 900
	last = 40
)

// publisher sends messages to one server, one request after the other. It repeats each request with
// the same dedup ids until the server answers. So the outcome of a message stays unknown only if
// the request is abandoned.
type publisher struct {
	n      *node
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	changed *sync.Cond
	held    bool
	busy    bool
	ending  bool               // only the last messages are still sent
	most    int                // number of messages before the last ones
	drop    context.CancelFunc // cancels the current request
	sent    int                // number of numbered messages
	sure    int                // number of confirmed messages
}

func newPublisher(n *node) *publisher {
	// The limit also counts the messages that the server already has from a copied data directory,
	// because one call of peek must list the whole queue.
	p := &publisher{n: n, ended: make(chan struct{}), most: max(last, most-len(n.holds))}
	p.changed = sync.NewCond(&p.mu)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	go p.run()
	return p
}

func (p *publisher) run() {
	defer close(p.ended)
	pace := time.NewTicker(25 * time.Millisecond)
	defer pace.Stop()
	for {
		select {
		case <-pace.C:
		case <-p.ctx.Done():
			return
		}
		p.mu.Lock()
		if p.held || p.sent >= p.budget() || p.ctx.Err() != nil {
			p.mu.Unlock()
			continue
		}
		list := p.n.w.compose(p.n, min(p.budget()-p.sent, 2+p.sent%11))
		p.sent += len(list)
		p.busy = true
		var ctx context.Context
		ctx, p.drop = context.WithCancel(p.ctx)
		p.mu.Unlock()
		answered := p.insist(ctx, list)
		p.mu.Lock()
		p.drop()
		p.busy = false
		if answered {
			p.sure += len(list)
		}
		p.n.w.holds(p.n, list, answered)
		p.changed.Broadcast()
		p.mu.Unlock()
	}
}

// insist repeats a request until the server answers. It returns false if ctx ended first.
func (p *publisher) insist(ctx context.Context, list []*judge.Message) bool {
	batch := make([]client.Message, len(list))
	for i, m := range list {
		batch[i] = client.Message{Body: p.n.w.body(m.N), Dedup: fmt.Sprintf("d%d", m.N), Group: m.Group}
	}
	api := client.NewHTTP(p.n.URL, 5*time.Second)
	defer api.Close()
	retry := time.NewTicker(30 * time.Millisecond)
	defer retry.Stop()
	for {
		if _, _, a := api.Publish(ctx, "q", batch); a.Outcome == client.Done {
			return true
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return false
		}
	}
}

// hold stops the publisher between two requests. If a request is not answered soon, it is abandoned
// and its outcome stays unknown.
func (p *publisher) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = true
	late := time.AfterFunc(3*time.Second, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.busy {
			p.drop()
		}
	})
	defer late.Stop()
	for p.busy {
		p.changed.Wait()
	}
}

func (p *publisher) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = false
}

// advance waits until n more messages are confirmed. It stops early if the publisher sends no more
// messages, or if the limit has passed.
func (p *publisher) advance(n int, limit time.Duration) {
	late := time.AfterFunc(limit, func() { p.mu.Lock(); p.changed.Broadcast(); p.mu.Unlock() })
	defer late.Stop()
	end := time.Now().Add(limit)
	p.mu.Lock()
	defer p.mu.Unlock()
	for until := p.sure + n; p.sure < until && (p.sent < p.budget() || p.busy) && !p.held && time.Now().Before(end); {
		p.changed.Wait()
	}
}

func (p *publisher) budget() int {
	if p.ending {
		return p.most + last
	}
	return p.most
}

// end publishes some last messages, so that a sink without traffic checks its target. Then it stops
// the publisher for good.
func (p *publisher) end() {
	p.mu.Lock()
	p.ending = true
	p.mu.Unlock()
	p.advance(15, 5*time.Second)
	p.hold()
	p.cancel()
	<-p.ended
}
