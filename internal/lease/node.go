package lease

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/lease/rules"
)

// Owner describes the owner of a log.
type Owner = rules.Owner

// Peer describes a node of the cluster.
type Peer = rules.Peer

// Table is what a node knows about the cluster. It is immutable.
type Table struct {
	Owners map[string]Owner // by log. A log without an owner has an empty Node.
	Nodes  []Peer           // all nodes, this one included
	// Able says that this node can write to the bucket. If it cannot, the table can be old.
	Able bool
}

// Node is a process that can own logs. Many goroutines may call its methods.
type Node struct {
	o     Options
	nc    *nats.Conn
	kv    jetstream.KeyValue
	id    string
	inbox string

	mu        sync.Mutex
	queue     []rules.Event         // for the loop
	campaigns map[string]chan *Term // by log
	closing   bool
	changed   chan struct{} // closed and replaced at each change of table, and of owned
	owned     int           // terms of this node
	drained   bool          // the node acquires no log

	table atomic.Pointer[Table]
	wake  chan struct{}

	loop loop // used by the goroutine run only

	ctx    context.Context // ends with the loop
	cancel context.CancelFunc
	opened chan struct{} // closed when the first table is complete
	done   chan struct{} // closed when the loop has ended
}

// Open starts a node. It creates the bucket if it does not exist. It returns when the node knows
// all present owners, and fails if the context ends before. The connection must be made with
// MaxReconnects(-1) and ReconnectBufSize(-1). It stays the caller's, and must not be closed before
// the node.
func Open(ctx context.Context, nc *nats.Conn, o Options) (*Node, error) {
	if err := o.fill(nc); err != nil {
		return nil, err
	}
	var id [8]byte
	source := o.Rand
	if source == nil {
		source = rand.Reader
	}
	if _, err := io.ReadFull(source, id[:]); err != nil {
		return nil, surgetank.Errorf(surgetank.CodeInternal, "drawing the id of a node failed: %w", err)
	}
	kv, err := openBucket(ctx, nc, &o)
	if err != nil {
		return nil, err
	}
	n := &Node{o: o, nc: nc, kv: kv, id: hex.EncodeToString(id[:]), inbox: nc.NewInbox(), campaigns: map[string]chan *Term{},
		changed: make(chan struct{}), wake: make(chan struct{}, 1), opened: make(chan struct{}), done: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.table.Store(&Table{})
	n.loop.init(n)
	if err := n.subscribe(); err != nil {
		n.cancel()
		return nil, surgetank.Errorf(surgetank.CodeUnavailable, "a node cannot subscribe to NATS: %w; check the permissions of its account", err)
	}
	go n.run()
	select {
	case <-n.opened:
		return n, nil
	case <-n.done:
	case <-ctx.Done():
	}
	n.Close()
	return nil, surgetank.Errorf(surgetank.CodeUnavailable, "the bucket %s did not answer; try again later", o.Bucket)
}

// subscribe subscribes to answers and pings.
func (n *Node) subscribe() error {
	answers, err := n.nc.Subscribe(n.inbox+".>", n.received)
	if err != nil {
		return err
	}
	pings, err := n.nc.Subscribe(pingSubject(n.id), func(m *nats.Msg) { _ = m.Respond(nil) }) // a lost answer is a lost ping
	if err != nil {
		_ = answers.Unsubscribe() // it fails only if the connection is closed
		return err
	}
	n.loop.subs = []*nats.Subscription{answers, pings}
	return n.nc.FlushTimeout(openIn)
}

// pingSubject is the subject of requests to a node.
func pingSubject(id string) string { return "surgetank.node." + id }

// ID returns the node's id, which no other process has.
func (n *Node) ID() string { return n.id }

// post passes events to the loop.
func (n *Node) post(events ...rules.Event) {
	n.mu.Lock()
	n.queue = append(n.queue, events...)
	n.mu.Unlock()
	n.poke()
}

// poke wakes the loop.
func (n *Node) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Campaign makes this node a candidate for a log. The channel passes each term of the node, one
// after the other. A term that nobody has received when the next one begins is replaced. The
// channel is closed by Withdraw and when the node ends. A second call returns the same channel.
func (n *Node) Campaign(log string) (<-chan *Term, error) {
	if err := checkName("log", log); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing {
		return nil, errClosed()
	}
	c := n.campaigns[log]
	if c == nil {
		c = make(chan *Term, 1)
		n.campaigns[log] = c
		n.queue = append(n.queue, rules.Campaign{Log: log})
		n.poke()
	}
	return c, nil
}

// Withdraw ends the campaign for a log. If this node owns the log, the term ends.
func (n *Node) Withdraw(log string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.campaigns[log]; c != nil {
		delete(n.campaigns, log)
		close(c)
		n.queue = append(n.queue, rules.Withdraw{Log: log})
		n.poke()
	}
}

// Owner returns the owner of a log, as this node knows it. It returns false if there is none.
func (n *Node) Owner(log string) (Owner, bool) {
	o := n.table.Load().Owners[log]
	return o, o.Node != ""
}

// Table returns what the node knows, and a channel that is closed at the next change. After the
// node has ended, the table does not change any more.
func (n *Node) Table() (*Table, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.table.Load(), n.changed
}

// Move asks the owner of a log, which must be this node, to move the log to another node. to is a
// node's id, or "" for the node with the fewest logs. The log's Term passes Leave.
func (n *Node) Move(log, to string) error {
	t := n.table.Load()
	if o := t.Owners[log]; o.Node != n.id {
		return surgetank.Errorf(surgetank.CodeNotFound, "the node %s does not own the log %q; its owner is %q", n.o.Name, log, o.Name)
	}
	if i := slices.IndexFunc(t.Nodes, func(p Peer) bool { return p.ID == to }); to == n.id || to != "" && (i < 0 || t.Nodes[i].Dead || !t.Nodes[i].Candidate) {
		return surgetank.Errorf(surgetank.CodeInvalid, "the log %q cannot move to the node %q, which is this one, dead, unknown or no candidate", log, to)
	}
	n.post(rules.Move{Log: log, To: to})
	return nil
}

// Drain moves all logs of this node to other nodes, one after the other, and returns when the node
// owns none. The node acquires no log until Undrain. If the context ends before, draining
// continues.
func (n *Node) Drain(ctx context.Context) error {
	n.post(rules.Drain{On: true})
	for {
		n.mu.Lock()
		owned, drained, changed := n.owned, n.drained, n.changed
		n.mu.Unlock()
		if owned == 0 && drained {
			return nil
		}
		select {
		case <-changed:
		case <-n.done:
			return nil
		case <-ctx.Done():
			return surgetank.Errorf(surgetank.CodeUncertain, "the node %s still owns %d logs; it continues to move them: %w", n.o.Name, owned, ctx.Err())
		}
	}
}

// Undrain makes the node a candidate again after Drain.
func (n *Node) Undrain() { n.post(rules.Drain{On: false}) }

// Done returns a channel that is closed when the node has ended, by Close or because its connection
// was closed.
func (n *Node) Done() <-chan struct{} { return n.done }

// Close ends all terms and frees their logs, so that other nodes acquire them at once. It does not
// wait for the owners; Drain does.
func (n *Node) Close() {
	n.mu.Lock()
	if !n.closing {
		n.closing = true
		n.queue = append(n.queue, rules.Close{})
		n.poke()
	}
	n.mu.Unlock()
	<-n.done
}

// finish closes all channels of campaigns.
func (n *Node) finish() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closing = true
	for _, log := range slices.Sorted(maps.Keys(n.campaigns)) {
		close(n.campaigns[log])
	}
	n.campaigns = map[string]chan *Term{}
	close(n.changed)
	n.changed = make(chan struct{})
}

func errClosed() error { return surgetank.Errorf(surgetank.CodeClosed, "the node is closed") }
