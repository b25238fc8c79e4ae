package lease

import (
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/surgetank/surgetank/internal/lease/rules"
)

// loop is the state of a node's goroutine, which runs the core.
type loop struct {
	core    *rules.Core
	terms   map[string]*Term // by log
	version uint64           // of the table
	subs    []*nats.Subscription

	watch    jetstream.KeyWatcher
	updates  <-chan jetstream.KeyValueEntry
	watches  chan jetstream.KeyWatcher // new watches
	watching bool                      // a new watch is being made
	makers   sync.WaitGroup            // counts the goroutines that make watches
}

func (l *loop) init(n *Node) {
	l.core = rules.New(n.o.config(n.id))
	l.terms = map[string]*Term{}
	l.watches = make(chan jetstream.KeyWatcher)
}

// run steps the core at each event and at least once per tick.
func (n *Node) run() {
	defer close(n.done)
	defer n.stop()
	l := &n.loop
	cfg := n.o.config(n.id)
	n.rewatch()
	tick := n.o.Clock.NewTimer(cfg.Tick())
	defer tick.Stop()
	connected, closing := false, false
	var deadline time.Duration // of the close
	for {
		var events []rules.Event
		select {
		case <-n.wake:
		case <-tick.C():
			tick.Reset(cfg.Tick())
		case w := <-l.watches:
			l.watch, l.updates, l.watching = w, w.Updates(), false
			events = append(events, rules.Watching{})
		case e, ok := <-l.updates:
			events = l.entries(e, ok)
			if !ok {
				n.rewatch()
			}
		}
		if now := n.nc.IsConnected(); now != connected {
			connected = now
			events = append(events, rules.Connected{Now: now})
		}
		n.mu.Lock()
		events = append(events, n.queue...)
		n.queue = nil
		begin := n.closing && !closing
		n.mu.Unlock()
		ended := n.nc.IsClosed()
		if ended && !closing {
			n.o.Logger.Error("node", "state", "ended", "reason", "the connection to NATS was closed")
			events = append(events, rules.Close{})
		}
		n.step(events)
		if begin {
			closing, deadline = true, n.o.Clock.Passed()+closeIn
		}
		if ended || closing && (l.core.Idle() || n.o.Clock.Passed() >= deadline) {
			return
		}
	}
}

// entries returns the events of all entries that the watch has ready.
func (l *loop) entries(e jetstream.KeyValueEntry, ok bool) (events []rules.Event) {
	for ; ok; e, ok = <-l.updates {
		if e == nil {
			events = append(events, rules.Complete{})
		} else {
			events = append(events, changed(e))
		}
		if len(l.updates) == 0 {
			return events
		}
	}
	l.updates = nil // the watch has ended
	return events
}

// step runs the core and its actions.
func (n *Node) step(events []rules.Event) {
	l := &n.loop
	acts := l.core.Step(n.o.Clock.Passed(), n.o.Clock.Now(), events...)
	for _, a := range acts {
		switch a := a.(type) {
		case rules.Write:
			n.write(a)
		case rules.Ping:
			_ = n.nc.PublishRequest(pingSubject(a.Node), n.inbox+".ping."+a.Node, nil) // a ping that is not sent has no result
		case rules.Rewatch:
			n.o.Logger.Warn("node", "state", "its watch of the bucket shows nothing; it is made again")
			n.rewatch()
		case rules.Began:
			n.began(a)
		case rules.Leave:
			if t := l.terms[a.Log]; t != nil && !t.left {
				t.left = true
				close(t.leave)
			}
		case rules.Lost:
			n.lost(a)
		}
	}
	n.publish()
	for _, e := range events {
		if _, is := e.(rules.Complete); is {
			select {
			case <-n.opened:
			default:
				close(n.opened)
			}
		}
	}
}

// write sends a write. Its answer comes to the inbox.
func (n *Node) write(w rules.Write) {
	m, err := n.message(w, n.inbox+".write."+strconv.FormatUint(w.ID, 10))
	if err == nil {
		err = n.nc.PublishMsg(m)
	}
	if err != nil {
		n.o.Logger.Debug("a write to the bucket failed", "key", w.Key, "error", err)
		n.post(rules.Answered{ID: w.ID, Outcome: rules.Failed})
	}
}

func (n *Node) began(a rules.Began) {
	t := &Term{Log: a.Log, Number: a.Term, node: n, lost: make(chan struct{}), leave: make(chan struct{})}
	n.loop.terms[a.Log] = t
	n.o.Logger.Info("node", "log", a.Log, "state", "owner", "term", a.Term)
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.campaigns[a.Log]
	if c == nil {
		return // withdrawn, and the core is about to know
	}
	select {
	case <-c: // a term that has ended
	default:
	}
	c <- t
}

func (n *Node) lost(a rules.Lost) {
	t := n.loop.terms[a.Log]
	delete(n.loop.terms, a.Log)
	t.reason = a.Reason
	close(t.lost)
	n.o.Logger.Info("node", "log", a.Log, "state", "not owner", "term", a.Term, "reason", a.Reason)
}

// publish publishes the table if it has changed.
func (n *Node) publish() {
	l := &n.loop
	old := n.table.Load()
	able, drained := l.core.Able(), l.core.Drained()
	n.mu.Lock()
	defer n.mu.Unlock()
	if old.Nodes != nil && l.version == l.core.Version() && old.Able == able && n.owned == len(l.terms) && n.drained == drained {
		return
	}
	l.version, n.owned, n.drained = l.core.Version(), len(l.terms), drained
	n.table.Store(&Table{Owners: l.core.Owners(), Nodes: l.core.Peers(), Able: able})
	close(n.changed)
	n.changed = make(chan struct{})
}

// rewatch makes a new watch of the bucket. The old one continues until then.
func (n *Node) rewatch() {
	if l := &n.loop; !l.watching {
		l.watching = true
		l.makers.Add(1)
		go n.makeWatch(l.watch)
	}
}

// makeWatch makes a watch, passes it to the loop and stops the old one.
func (n *Node) makeWatch(old jetstream.KeyWatcher) {
	defer n.loop.makers.Done()
	for {
		w, err := n.kv.WatchAll(n.ctx)
		if err == nil {
			select {
			case n.loop.watches <- w:
			case <-n.ctx.Done():
				n.stopWatch(w)
			}
			break
		}
		n.o.Logger.Debug("watching the bucket failed", "error", err)
		if !wait(n.ctx, n.o.Clock, 200*time.Millisecond) {
			break
		}
	}
	if old != nil {
		n.stopWatch(old)
	}
}

// stopWatch stops a watch. The watch can wait for a reader of its last entries.
func (n *Node) stopWatch(w jetstream.KeyWatcher) {
	_ = w.Stop() // it fails if the connection or the subscription was closed, which ends the watch, too
	limit := n.o.Clock.NewTimer(closeIn)
	defer limit.Stop()
	for {
		select {
		case _, ok := <-w.Updates():
			if !ok {
				return
			}
		case <-limit.C():
			return
		}
	}
}

// stop ends everything that the loop has started.
func (n *Node) stop() {
	for _, t := range n.loop.terms { // the core ended all terms before
		t.reason = rules.ReasonClosed
		close(t.lost)
	}
	n.publish()
	n.cancel()
	for _, s := range n.loop.subs {
		_ = s.Unsubscribe() // it fails only if the connection is closed
	}
	if n.loop.watch != nil && !n.loop.watching {
		n.stopWatch(n.loop.watch)
	}
	n.loop.makers.Wait()
	n.finish()
}
