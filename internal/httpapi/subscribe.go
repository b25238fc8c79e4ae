package httpapi

import (
	"context"
	"crypto/rand"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/tally"
)

// subscribers has the subscriptions that clients opened over HTTP. A subscription lives while its
// client sends requests for it. Without requests for SubscriberTTL it is closed, and its leased
// messages are returned to the queue.
type subscribers struct {
	mu    sync.Mutex
	byID  map[string]*subscriber
	pools map[string]*pool
}

// subscriber is one subscription and its client. The mu of subscribers guards busy and closed.
type subscriber struct {
	id     string
	owner  *auth.User
	vhost  string
	queue  string
	sub    door.Subscription
	seat   *auth.Admission // it counts as a connection with one consumer
	pool   string          // key in pools; "" without a pool
	noAck  bool            // delivery settles the messages, so they cannot be returned to the queue
	busy   int             // number of requests that use it now
	closed bool
	idle   *time.Timer

	// The newest numbered poll and its messages. A client that sends the same number again did not
	// receive them.
	polling sync.Mutex // held while a poll runs
	poll    uint64
	handed  []surgetank.Delivery // receipts only
}

// unseen returns the messages of poll n to the queue without counting an attempt, if n was the
// newest poll. The caller has locked polling.
func (s *subscriber) unseen(c *call, n uint64) {
	if n != 0 && s.poll == n {
		c.giveBack(s.handed)
	}
	s.poll, s.handed = n, nil
}

// note records the messages of a numbered poll.
func (s *subscriber) note(list []surgetank.Delivery) {
	if s.poll == 0 {
		return
	}
	for i := range list {
		s.handed = append(s.handed, surgetank.Delivery{Receipt: list[i].Receipt})
	}
}

// pool is the broker's number for a name that a client chose.
type pool struct {
	number uint64
	users  int
}

// subscribe attaches a consumer to a queue.
func (c *call) subscribe() error {
	if _, err := c.query(); err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	in := readSubscribe(f, &c.api.limits)
	if err := f.done(); err != nil {
		return err
	}
	o, poolName, limit := in.options, in.pool, in.poolLimit
	s := &subscriber{id: rand.Text(), owner: c.user, vhost: c.vhost(), queue: c.params["q"], busy: 1, noAck: o.NoAck}
	if poolName != "" {
		s.pool = c.user.Name + "\n" + poolName
		if c.user.IsLocal() {
			s.pool = "\n" + poolName
		}
	}
	if s.seat, err = c.api.opts.Auth.Admit(c.user, c.vhost()); err != nil {
		c.api.opts.Refused.Refused(err, tally.Connections)
		return err
	}
	if err := s.seat.Consumer(); err != nil {
		c.api.opts.Refused.Refused(err, tally.Consumers)
		s.seat.Leave()
		return err
	}
	if err := c.api.subs.add(s, c.api.limits.Subscriptions, &o.Pool); err != nil {
		c.api.opts.Refused.Add(tally.Subscriptions)
		s.seat.Leave()
		return err
	}
	credit := o.Credit
	if limit >= 0 {
		o.Credit = 0 // no message may arrive before the limit applies
	}
	sub, err := c.broker().Attach(c.r.Context(), c.queue(), o)
	if err != nil {
		c.api.subs.remove(s)
		return err
	}
	if limit >= 0 {
		sub.SetPoolLimit(int(limit))
		sub.AddCredit(credit)
	}
	if !c.api.subs.attach(s, sub) { // the API was closed meanwhile
		_ = sub.Close()
		return surgetank.Errorf(surgetank.CodeClosed, "the server is stopping; subscribe again elsewhere or later")
	}
	c.api.subs.done(c.api, s)
	return c.respond(http.StatusCreated, subscribedAnswer{s.id, c.api.limits.SubscriberTTL.String()})
}

// subscribeInput is the body of a subscribe request.
type subscribeInput struct {
	options   door.SubscribeOptions
	pool      string
	poolLimit int64 // -1: none is given
}

func readSubscribe(f *fields, _ *Limits) subscribeInput {
	in := subscribeInput{options: door.SubscribeOptions{
		SubscribeOptions: surgetank.SubscribeOptions{
			Credit:       int(f.integer("credit", 0, 1<<20, 0)),
			ManualCredit: f.flag("manual_credit", false),
			NoAck:        !f.flag("ack", true),
			Lease:        f.leaseOrForever("lease"),
			Exclusive:    f.flag("exclusive", false),
			Single:       f.flag("single_active", false),
			Priority:     int(f.integer("priority", -1<<30, 1<<30, 0)),
			Name:         f.text("name", surgetank.MaxNameLen),
		},
		GroupRun: int(f.integer("group_run", 0, 1<<20, 0)),
	}}
	in.pool = f.text("pool", surgetank.MaxNameLen)
	in.poolLimit = f.integer("pool_limit", 0, 1<<20, -1)
	if in.pool == "" && in.poolLimit >= 0 {
		f.fail("pool_limit", "it limits a pool; name one with pool")
	}
	return in
}

// add adds a subscription that will be made, and sets number to the broker's number of its pool. It
// fails if the limit, most, is reached.
func (h *subscribers) add(s *subscriber, most int, number *uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byID == nil {
		h.byID, h.pools = map[string]*subscriber{}, map[string]*pool{}
	}
	if len(h.byID) >= most {
		return &surgetank.Error{Code: surgetank.CodeBusy, RetryAfter: defaultRetryAfter,
			Message: "there are as many subscriptions over HTTP as this server allows; close some, or try again later"}
	}
	h.byID[s.id] = s
	if s.pool != "" {
		p := h.pools[s.pool]
		if p == nil {
			p = &pool{number: door.NewPool()}
			h.pools[s.pool] = p
		}
		p.users++
		*number = p.number
	}
	return nil
}

func (h *subscribers) attach(s *subscriber, sub door.Subscription) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.sub = sub
	return !s.closed
}

// remove removes a subscription. It reports whether this call removed it.
func (h *subscribers) remove(s *subscriber) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.drop(s)
}

func (h *subscribers) drop(s *subscriber) bool {
	if s.closed {
		return false
	}
	s.closed = true
	s.seat.Leave()
	delete(h.byID, s.id)
	if s.idle != nil {
		s.idle.Stop()
	}
	if p := h.pools[s.pool]; p != nil {
		if p.users--; p.users == 0 {
			delete(h.pools, s.pool)
		}
	}
	return true
}

// use finds a subscription of the caller and keeps it from being closed as idle until done.
func (h *subscribers) use(c *call) (*subscriber, error) {
	h.mu.Lock()
	s := h.byID[c.params["s"]]
	known := s != nil && s.sub != nil && s.owner.Same(c.user)
	if known {
		s.busy++
		if s.idle != nil {
			s.idle.Stop()
		}
	}
	h.mu.Unlock()
	if !known { // another user's subscription is not found: ids are secrets
		return nil, withStatus(http.StatusNotFound, surgetank.Errorf(surgetank.CodeClosed,
			"there is no such subscription; it may have been closed because nobody asked for messages for %v; subscribe again", c.api.limits.SubscriberTTL))
	}
	if err := c.api.opts.Auth.Authorize(c.user, s.vhost, auth.Read, s.queue); err != nil {
		h.done(c.api, s)
		return nil, err
	}
	return s, nil
}

// done starts the idle time of a subscription that no request uses.
func (h *subscribers) done(a *API, s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.busy--; s.busy > 0 || s.closed {
		return
	}
	s.idle = time.AfterFunc(a.limits.SubscriberTTL, func() {
		h.mu.Lock()
		mine := s.busy == 0 && h.drop(s)
		h.mu.Unlock()
		if mine {
			if err := s.sub.Close(); err != nil {
				a.opts.Logger.Warn("an idle subscription could not be closed", "error", err)
			}
		}
	})
}

func (h *subscribers) closeAll() {
	h.mu.Lock()
	var list []*subscriber
	for _, s := range h.byID {
		if h.drop(s) && s.sub != nil {
			list = append(list, s)
		}
	}
	h.mu.Unlock()
	for _, s := range list {
		_ = s.sub.Close() // fails only if the broker is closed, which ends all leases
	}
}

func (h *subscribers) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.byID)
}

// subscriptionReceive returns messages that wait for a subscription, or waits for some.
func (c *call) subscriptionReceive() error {
	if _, err := c.query(); err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	in := readPoll(f, &c.api.limits)
	if err := f.done(); err != nil {
		return err
	}
	s, err := c.api.subs.use(c)
	if err != nil {
		return err
	}
	defer c.api.subs.done(c.api, s)
	if in.number != 0 {
		s.polling.Lock()
		defer s.polling.Unlock()
		s.unseen(c, in.number)
	}
	if err := c.answersFree(); err != nil {
		return err
	}
	poll, stop := c.pollContext()
	defer stop()
	list, err := s.sub.TryReceive(nil, in.max, in.maxBytes)
	if err == nil && len(list) == 0 && in.wait > 0 {
		ctx, cancel := context.WithTimeout(poll, in.wait)
		defer cancel()
		list, err = s.sub.Receive(ctx, nil, in.max, in.maxBytes)
		if err != nil && ctx.Err() != nil && len(list) == 0 {
			err = nil // the wait is over; an empty answer is valid
		}
	}
	if err := c.polled(poll, list, err); err != nil {
		return err
	}
	if len(list) > 0 {
		c.api.names.learn(list[0].ID.Queue, fullname.Of(s.vhost, s.queue))
	}
	if in.number != 0 {
		s.note(list)
	}
	err = c.respondMessages(list, s.noAck, func(b []byte) []byte {
		floor, _ := s.sub.Floor()
		return closeObject(strconv.AppendUint(append(b, `,"floor":`...), floor, 10))
	})
	if err != nil {
		c.giveBack(list)
		return unsent(err)
	}
	return nil
}

// pollInput is the body of a poll of a subscription.
type pollInput struct {
	max, maxBytes int
	wait          time.Duration
	number        uint64 // 0: the poll has none
}

func readPoll(f *fields, l *Limits) pollInput {
	return pollInput{
		max:      int(f.integer("max", 1, int64(l.MaxReceive), int64(l.MaxReceive))),
		maxBytes: int(f.integer("max_bytes", 1, 64<<20, 8<<20)),
		wait:     f.duration("wait", 0, l.MaxWait, 0),
		number:   uint64(f.integer("poll", 1, 1<<53, 0)),
	}
}

// subscriptionCredit adds credit, sets the pool's limit, or (with neither) only keeps the
// subscription alive.
func (c *call) subscriptionCredit() error {
	if _, err := c.query(); err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	change := readCredit(f, &c.api.limits)
	if err := f.done(); err != nil {
		return err
	}
	s, err := c.api.subs.use(c)
	if err != nil {
		return err
	}
	defer c.api.subs.done(c.api, s)
	if change.poolLimit >= 0 {
		s.sub.SetPoolLimit(int(change.poolLimit))
	}
	if change.add != 0 {
		s.sub.AddCredit(int(change.add))
	}
	floor, _ := s.sub.Floor()
	return c.respond(http.StatusOK, floorAnswer{floor})
}

// creditInput changes credit. A poolLimit of -1 changes no limit.
type creditInput struct{ add, poolLimit int64 }

func readCredit(f *fields, _ *Limits) creditInput {
	return creditInput{f.integer("add", -1<<20, 1<<20, 0), f.integer("pool_limit", 0, 1<<20, -1)}
}

// leaving finds the subscription of a client that cancels or closes it. The parameter unseen names
// a poll whose answer the client did not receive.
func (c *call) leaving() (*subscriber, error) {
	q, err := c.query()
	if err != nil {
		return nil, err
	}
	if err := c.noBody(); err != nil {
		return nil, err
	}
	s, err := c.api.subs.use(c)
	if err != nil {
		return nil, err
	}
	if n := q.number("unseen"); n != 0 { // a running poll ends with its client's connection
		s.polling.Lock()
		defer s.polling.Unlock()
		s.unseen(c, n)
	}
	return s, nil
}

// subscriptionCancel stops deliveries. Received messages stay leased while the subscription is kept
// alive.
func (c *call) subscriptionCancel() error {
	s, err := c.leaving()
	if err != nil {
		return err
	}
	defer c.api.subs.done(c.api, s)
	if err := s.sub.Cancel(); err != nil {
		return err
	}
	s.seat.EndConsumers(1)
	return c.respond(http.StatusOK, cancelledAnswer{true})
}

// subscriptionClose ends a subscription. Its leased messages are returned to the queue.
func (c *call) subscriptionClose() error {
	s, err := c.leaving()
	if err != nil {
		return err
	}
	if c.api.subs.remove(s) {
		if err := s.sub.Close(); err != nil {
			return err
		}
	}
	return c.respond(http.StatusOK, closedAnswer{true})
}
