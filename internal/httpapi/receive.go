package httpapi

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
)

// maxNoAck is how many messages are fetched at once if delivery settles them, because they cannot
// be returned to the queue when the answer becomes too large.
const maxNoAck = 64

// receive leases messages. It waits for the first message as long as the request says. If the
// messages do not reach the client, the leases are returned at once, without counting an attempt.
func (c *call) receive() error {
	if _, err := c.query(); err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	o := readReceive(f, &c.api.limits)
	if err := f.done(); err != nil {
		return err
	}
	if o.NoAck {
		o.Max = min(o.Max, maxNoAck)
	}
	if err := c.answersFree(); err != nil {
		return err
	}
	ctx, cancel := c.pollContext()
	defer cancel()
	list, err := c.broker().Receive(ctx, c.queue(), o)
	if err := c.polled(ctx, list, err); err != nil {
		return err
	}
	if len(list) > 0 {
		c.api.names.learn(list[0].ID.Queue, c.queue())
	}
	if err := c.respondMessages(list, o.NoAck, closeObject); err != nil {
		c.giveBack(list)
		return unsent(err)
	}
	return nil
}

func readReceive(f *fields, l *Limits) surgetank.ReceiveOptions {
	return surgetank.ReceiveOptions{
		Max:      int(f.integer("max", 1, int64(l.MaxReceive), 1)),
		Wait:     f.duration("wait", 0, l.MaxWait, 0),
		Lease:    f.duration("lease", time.Millisecond, surgetank.MaxLease, 0),
		MaxBytes: int(f.integer("max_bytes", 1, 64<<20, 16<<20)),
		NoAck:    !f.flag("ack", true),
		Name:     f.text("name", surgetank.MaxNameLen),
	}
}

// pollContext returns a context that ends when the client leaves and when the API is closed.
func (c *call) pollContext() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(c.r.Context())
	stop := context.AfterFunc(c.api.base, cancel)
	return ctx, func() { stop(); cancel() }
}

// polled checks the result of a wait for messages. An empty result because the API is closing is no
// error: the client asks again, elsewhere or later.
func (c *call) polled(ctx context.Context, list []surgetank.Delivery, err error) error {
	switch {
	case c.r.Context().Err() != nil:
		c.giveBack(list)
		return surgetank.Errorf(surgetank.CodeClosed, "the client left before messages came")
	case err != nil && ctx.Err() != nil:
		return nil
	case err != nil:
		c.giveBack(list)
	}
	return err
}

// giveBack returns leases whose messages never reached the client.
func (c *call) giveBack(list []surgetank.Delivery) {
	var back []surgetank.Settlement
	for i := range list {
		if r := list[i].Receipt; r != (surgetank.Receipt{}) {
			back = append(back, surgetank.Settlement{Receipt: r, Op: surgetank.Nack, Uncounted: true})
		}
	}
	if len(back) == 0 {
		return
	}
	// The request's context has ended, so it is not used. After an error the leases end by their
	// deadline instead.
	if err := c.broker().SettleAsync(context.WithoutCancel(c.r.Context()), back, nil); err != nil {
		c.api.opts.Logger.Warn("leases could not be given back", "count", len(back), "error", err)
	}
}

func (c *call) ack() error    { return c.settlePath(readAck) }
func (c *call) nack() error   { return c.settlePath(readNack) }
func (c *call) extend() error { return c.settlePath(readExtend) }

// receiptsAlike are receipts that are settled in the same way.
type receiptsAlike struct {
	receipts []string
	how      surgetank.Settlement
}

func readReceipts(f *fields, l *Limits, op surgetank.SettleOp) receiptsAlike {
	f.need("receipts")
	return receiptsAlike{f.texts("receipts", l.MaxReceipts), surgetank.Settlement{Op: op}}
}

func readAck(f *fields, l *Limits) receiptsAlike {
	r := readReceipts(f, l, surgetank.Ack)
	r.how.Elapsed = readElapsed(f)
	return r
}

func readNack(f *fields, l *Limits) receiptsAlike {
	r := readReceipts(f, l, surgetank.Nack)
	nackMembers(f, &r.how)
	return r
}

func readExtend(f *fields, l *Limits) receiptsAlike {
	r := readReceipts(f, l, surgetank.Extend)
	r.how.Lease = f.duration("lease", time.Millisecond, surgetank.MaxLease, 0)
	return r
}

// nackMembers reads the members of a nack besides its receipts.
func nackMembers(f *fields, s *surgetank.Settlement) {
	s.Delay = f.duration("delay", 0, surgetank.MaxDuration, surgetank.RetryBackoff)
	s.Reason = f.text("reason", 1024)
	s.Uncounted = !f.flag("count", true)
	switch f.choice("target", "down", "busy") {
	case "down":
		s.Target = surgetank.TargetDown
	case "busy":
		s.Target = surgetank.TargetBusy
	}
	s.RetryAfter = f.duration("retry_after", 0, surgetank.MaxDuration, 0)
	if f.flag("dead_letter", false) {
		if f.has("delay") || s.Uncounted || s.Target != surgetank.TargetUnknown {
			f.fail("dead_letter", "a message that is dead-lettered is not tried again; leave delay, count and target out")
		}
		s.Op, s.Delay = surgetank.Reject, 0
	}
}

// readElapsed reads how long the target worked.
func readElapsed(f *fields) time.Duration {
	return f.duration("elapsed", 0, surgetank.MaxDuration, 0)
}

// settlePath settles all receipts of a request in the same way.
func (c *call) settlePath(read func(*fields, *Limits) receiptsAlike) error {
	if _, err := c.query(); err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	same := read(f, &c.api.limits)
	if err := f.done(); err != nil {
		return err
	}
	list := make([]surgetank.Settlement, len(same.receipts))
	for i, text := range same.receipts {
		r, err := surgetank.ParseReceipt(text)
		if err != nil {
			return surgetank.FieldErrorf("receipts", "receipts[%d]: %s", i, err)
		}
		list[i] = same.how
		list[i].Receipt = r
		if err := c.receiptOfQueue(r, c.queue()); err != nil {
			return err
		}
	}
	return c.settleAll(list)
}

// receiptOfQueue rejects receipts of another queue than the one whose permission was checked.
func (c *call) receiptOfQueue(r surgetank.Receipt, full string) error {
	name, err := c.api.names.find(c, r.ID.Queue)
	if err != nil || name == full || name == "" { // "": the queue is gone, and its leases too
		return err
	}
	return surgetank.FieldErrorf("receipts", "the receipt %.60q belongs to another queue; settle it there", r.String())
}

// ownReceipt checks that the caller may read the receipt's queue.
func (c *call) ownReceipt(r surgetank.Receipt) error {
	name, err := c.api.names.find(c, r.ID.Queue)
	if err != nil || name == "" {
		return err
	}
	vhost, queue := fullname.Split(name)
	return c.api.opts.Auth.Authorize(c.user, vhost, auth.Read, queue)
}

// settle settles receipts of any queues, each in its own way.
func (c *call) settle() error {
	if _, err := c.query(); err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	f.need("settlements")
	list := readSettlements(f, &c.api.limits)
	if err := f.done(); err != nil {
		return err
	}
	for _, s := range list {
		if err := c.ownReceipt(s.Receipt); err != nil {
			return err
		}
	}
	return c.settleAll(list)
}

// readSettlements reads a list of settlements.
func readSettlements(f *fields, l *Limits) []surgetank.Settlement {
	var list []surgetank.Settlement
	for _, item := range f.objects("settlements", l.MaxReceipts, "Settlement") {
		list = append(list, readSettlement(item, l))
		if err := item.done(); err != nil {
			f.err = err
			return nil
		}
	}
	return list
}

func readSettlement(f *fields, _ *Limits) (s surgetank.Settlement) {
	f.need("receipt")
	f.need("op")
	receipt, op := f.text("receipt", 100), f.choice("op", "ack", "nack", "extend")
	s.Elapsed = readElapsed(f)
	if op == "nack" || f.describing != nil {
		s.Op = surgetank.Nack
		nackMembers(f, &s)
	}
	if op == "extend" || f.describing != nil {
		s.Op = surgetank.Extend
		s.Lease = f.duration("lease", time.Millisecond, surgetank.MaxLease, 0)
	}
	r, err := surgetank.ParseReceipt(receipt)
	if err != nil && f.err == nil {
		f.err = surgetank.FieldErrorf(f.prefix+"receipt", "%s", err)
	}
	s.Receipt = r
	return s
}

// settleAll settles and reports each receipt's result. The status is 200 even if some leases were
// lost: the request was carried out, and each result says whether its lease still existed.
func (c *call) settleAll(list []surgetank.Settlement) error {
	results, err := c.broker().Settle(c.r.Context(), list)
	if err != nil {
		return err
	}
	answer := settledAnswer{Results: make([]settled, len(results))}
	for i, err := range results {
		one := settled{Receipt: list[i].Receipt.String(), OK: err == nil}
		if err == nil {
			answer.Done++
		} else {
			answer.Failed++
			p := problemOf(err)
			one.Code, one.Detail = p.Code, p.Detail
		}
		answer.Results[i] = one
	}
	return c.respond(http.StatusOK, answer)
}

// queueNames caches the names of queues by their numbers, so a receipt's queue is found without
// asking the broker each time. Numbers are never used again. When the cache is full, it is emptied.
type queueNames struct {
	mu   sync.Mutex
	byID map[uint64]string
}

const maxQueueNames = 100_000

func (n *queueNames) learn(id uint64, full string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byID == nil || len(n.byID) >= maxQueueNames {
		n.byID = map[uint64]string{}
	}
	n.byID[id] = strings.Clone(full)
}

// find returns the full name for a queue's number, or "" if there is none.
func (n *queueNames) find(c *call, id uint64) (string, error) {
	n.mu.Lock()
	name, ok := n.byID[id]
	n.mu.Unlock()
	if ok {
		return name, nil
	}
	if c.params["q"] != "" && !c.looked { // usually the receipt is from the path's own queue
		if info, err := c.api.opts.Broker.Queue(c.r.Context(), c.queue()); err == nil && info.ID == id {
			n.learn(id, info.Name)
			return info.Name, nil
		}
	}
	if c.looked { // once per request: unknown numbers must not cause endless searches
		return "", nil
	}
	c.looked = true
	all, err := c.api.opts.Broker.Queues(c.r.Context()) // the user's rights are checked when the queue is found
	if err != nil && !door.IsPartial(err) {
		return "", err
	}
	for i := range all {
		n.learn(all[i].ID, all[i].Name)
		if all[i].ID == id {
			name = all[i].Name
		}
	}
	if name == "" && err != nil {
		return "", err
	}
	return name, nil
}
