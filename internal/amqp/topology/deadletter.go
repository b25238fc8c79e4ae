package topology

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/policy"
)

// Each virtual host has one broker queue for dead-lettering to exchanges: the passage. It is the
// dead-letter queue of all queues with x-dead-letter-exchange. The door consumes the passage. In
// one transaction it publishes each message to the queues that the exchange selects, and acks it.
// So a dead letter is never lost between two queues, as it can be in RabbitMQ. If one of these
// queues refuses the message, the door tries again.

const (
	passageCredit = 512
	passageBatch  = 128
	passageBytes  = 4 << 20
	passageRetry  = time.Second
)

// deadLetterer is a virtual host's passage and the state of its consumer.
type deadLetterer struct {
	mu      sync.Mutex
	running bool
	cancel  context.CancelFunc
}

// resumeDeadLetters starts the consumer of the passage, if an earlier process declared a passage.
func (vh *Vhost) resumeDeadLetters(ctx context.Context) error {
	_, err := vh.env.Broker.Queue(ctx, translate.DeadLetterQueue(vh.Name))
	if surgetank.CodeOf(err) == surgetank.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	return vh.startDeadLetters()
}

// startDeadLetters declares the passage and starts its consumer, once.
func (vh *Vhost) startDeadLetters() error {
	d, s := &vh.deadLetters, vh.env
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running {
		return nil
	}
	name := translate.DeadLetterQueue(vh.Name)
	if _, _, err := s.Broker.DeclareQueue(s.Context, name, policy.PassageConfig, surgetank.DeclareIfAbsent); err != nil {
		return err
	}
	sub, err := s.Broker.Subscribe(s.Context, name, surgetank.SubscribeOptions{Credit: passageCredit, Lease: surgetank.LeaseForever, Name: "dead letters"})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(s.Context)
	d.running, d.cancel = true, cancel
	s.Background(func() { vh.serveDeadLetters(ctx, sub) })
	return nil
}

func (d *deadLetterer) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cancel != nil {
		d.cancel()
	}
}

func (vh *Vhost) serveDeadLetters(ctx context.Context, sub surgetank.Subscription) {
	s := vh.env
	defer func() {
		if err := sub.Close(); err != nil {
			s.Log.Debug("closing the dead-letter passage failed", "vhost", vh.Name, "err", err)
		}
	}()
	var buf []surgetank.Delivery
	for {
		var err error
		buf, err = sub.Receive(ctx, buf[:0], passageBatch, passageBytes)
		if err != nil {
			if ctx.Err() == nil {
				s.Log.Error("dead letters of a virtual host are no longer passed on", "vhost", vh.Name, "err", err)
				vh.deadLetters.mu.Lock()
				vh.deadLetters.running = false
				vh.deadLetters.mu.Unlock()
			}
			return
		}
		vh.passOn(ctx, buf)
		clear(buf)
	}
}

// passOn moves a batch of dead letters in one transaction. If that fails, it moves each on its own.
func (vh *Vhost) passOn(ctx context.Context, batch []surgetank.Delivery) {
	var msgs []surgetank.Publishing
	settles := make([]surgetank.Settlement, 0, len(batch))
	for i := range batch {
		if m := vh.reroute(&batch[i]); len(m.Queues) > 0 {
			msgs = append(msgs, m)
		}
		settles = append(settles, surgetank.Settlement{Receipt: batch[i].Receipt, Op: surgetank.Ack})
	}
	if vh.transact(ctx, msgs, settles) == nil {
		return
	}
	for i := range batch {
		vh.passOnOne(ctx, &batch[i])
	}
}

func (vh *Vhost) transact(ctx context.Context, msgs []surgetank.Publishing, settles []surgetank.Settlement) error {
	if len(msgs) > 0 {
		_, err := vh.env.Broker.Transact(door.Forwarding(ctx), msgs, settles)
		return err
	}
	_, err := vh.env.Broker.Settle(ctx, settles)
	return err
}

func (vh *Vhost) passOnOne(ctx context.Context, d *surgetank.Delivery) {
	var msgs []surgetank.Publishing
	if m := vh.reroute(d); len(m.Queues) > 0 {
		msgs = append(msgs, m)
	}
	err := vh.transact(ctx, msgs, []surgetank.Settlement{{Receipt: d.Receipt, Op: surgetank.Ack}})
	if surgetank.CodeOf(err) == surgetank.CodeNotFound && len(msgs) > 0 {
		// A destination queue was deleted, and this door has not noticed.
		for _, full := range msgs[0].Queues {
			if _, qerr := vh.env.Broker.Queue(ctx, full); surgetank.CodeOf(qerr) == surgetank.CodeNotFound {
				_, name := fullname.Split(full)
				if q := vh.Known(name); q != nil {
					vh.Forget(q)
				}
			}
		}
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	vh.env.Log.Warn("a dead letter could not be passed on; it is kept and tried again", "vhost", vh.Name, "id", d.ID, "err", err)
	back := surgetank.Settlement{Receipt: d.Receipt, Op: surgetank.Nack, Delay: passageRetry, Uncounted: true}
	if _, err := vh.env.Broker.Settle(ctx, []surgetank.Settlement{back}); err != nil {
		vh.env.Log.Warn("a dead letter could not be returned; it is tried again after the broker's next start", "id", d.ID, "err", err)
	}
}

// reroute makes the publish of a dead letter. If no queue is found, the publish has none.
func (vh *Vhost) reroute(d *surgetank.Delivery) surgetank.Publishing {
	if len(d.Deaths) == 0 {
		return surgetank.Publishing{}
	}
	a, ok := vh.deadLetterTarget(d.Deaths[0].Queue)
	if !ok {
		return surgetank.Publishing{}
	}
	return vh.deadLetter(d, a)
}

// deadLetterTarget returns a queue's settings for its dead letters. The queue can be gone.
func (vh *Vhost) deadLetterTarget(full string) (translate.QueueAttrs, bool) {
	_, name := fullname.Split(full)
	vh.mu.RLock()
	defer vh.mu.RUnlock()
	if q := vh.queues[name]; q != nil && q.Full == full && q.Attrs().HasDLX {
		return *q.Attrs(), true
	}
	if a, ok := vh.retired[full]; ok {
		return a, true
	}
	a := vh.under(name, translate.QueueAttrs{}) // a queue whose policy sets the dead-letter exchange
	return a, a.HasDLX
}

// maxRetired bounds the number of remembered deleted queues.
const maxRetired = 4096

// retire remembers the dead-letter exchange of a deleted queue. The queue's record, if it has one,
// is kept for the same time, so that a restart does not forget it. The caller holds mu.
func (vh *Vhost) retire(full string, a translate.QueueAttrs) {
	if len(vh.retired) >= maxRetired {
		for k := range vh.retired { // forget any one; the next start finds its record
			delete(vh.retired, k)
			break
		}
	}
	vh.retired[full] = a
}

// ForgetRetired forgets deleted queues and their records when no dead letter of theirs is in the
// passage. That is certain once the passage was empty after the deletion.
func (vh *Vhost) ForgetRetired() {
	vh.mu.RLock()
	gone := slices.Collect(maps.Keys(vh.retired))
	vh.mu.RUnlock()
	if len(gone) == 0 {
		return
	}
	info, err := vh.env.Broker.Queue(vh.env.Context, translate.DeadLetterQueue(vh.Name))
	if err != nil && surgetank.CodeOf(err) != surgetank.CodeNotFound || info.Ready+info.Blocked+info.Delayed+info.Leased > 0 {
		return
	}
	vh.mu.Lock()
	for _, full := range gone {
		delete(vh.retired, full)
	}
	vh.mu.Unlock()
	vh.sweep(trash{queues: gone})
}

// deadLetter adds a death to a message and finds its queues.
func (vh *Vhost) deadLetter(d *surgetank.Delivery, a translate.QueueAttrs) surgetank.Publishing {
	x := vh.Exchange(a.DLX)
	if x == nil {
		return surgetank.Publishing{}
	}
	f, _, ok := translate.ReadStored(&d.Message, nil)
	if !ok {
		f = translate.StoredForm{Block: translate.ForeignBlock(d)}
	}
	p, err := wire.ParseProperties(f.Block)
	if err != nil {
		vh.env.Log.Error("a dead letter has damaged properties and is dropped", "vhost", vh.Name, "id", d.ID, "err", err)
		return surgetank.Publishing{}
	}
	keys := []string{a.DLK}
	p.Headers = translate.WithDeaths(p.Headers, f.Flags&translate.OpaqueDeaths != 0, translate.DeathsOf(d, string(f.Exchange), &p))
	p.Flags = p.Flags&^wire.HasExpiration | wire.HasHeaders
	if a.HasDLK {
		p.Headers = p.Headers.Without(func(n []byte) bool { return string(n) == "CC" })
	} else {
		keys = translate.RoutingKeys(d.Key, p.Headers)
	}
	r := vh.Route(x, keys, &p)
	queues := make([]string, 0, len(r.Queues))
	for _, full := range r.Queues {
		_, name := fullname.Split(full)
		if translate.DeathCycle(p.Headers, name) {
			_, from := fullname.Split(d.Deaths[0].Queue)
			vh.circles.note(vh, from, name)
			continue
		}
		queues = append(queues, full)
	}
	m := d.Message
	m.Key = keys[0]
	m.TTL, m.Delay, m.DedupID = 0, 0, ""
	*door.Opaque(&m), m.Headers = translate.Store(translate.OpaqueDeaths, a.DLX, &p, m.ContentType)
	return surgetank.Publishing{Queues: queues, Message: m}
}

// WantsRefused reports whether one of the queues dead-letters the messages that it refuses. queues
// are broker names.
func (vh *Vhost) WantsRefused(queues []string) bool {
	vh.mu.RLock()
	defer vh.mu.RUnlock()
	for _, full := range queues {
		_, name := fullname.Split(full)
		if q := vh.queues[name]; q != nil && q.Attrs().Overflow == translate.OverflowRejectDLX && q.Attrs().HasDLX {
			return true
		}
	}
	return false
}
