package policy

import (
	"context"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
)

// View is the Broker with the rights of one user: a call without the needed right is refused with
// CodeDenied. A door whose users name queues must work through a View alone, so no access to a
// queue can skip the check. (AMQP's rights to publish are rights to exchanges; its door checks
// them.)
//
//	Publish, PublishAsync, Transact                        write to each queue
//	Subscribe, Attach, Receive, Peek, PurgeQueue,
//	DropDamaged, History                                   read
//	DeclareQueue, Change, DeleteQueue                      configure; to name a dead-letter queue, also read and write to that
//	Redrive                                                read, and write to where the messages go
//	Queue, Queues                                          any of the three, or monitoring; others are not shown
//	SetMeta, SetMetaIf, SetMetaLater, Meta, WatchMeta      administrator
//
// Settlements are not checked: a receipt has only a queue's number, and the door decides who may
// use receipts.
type View struct {
	*Broker
	user *auth.User
}

var _ door.Broker = (*View)(nil)

// For returns the Broker with the rights of a user.
func (b *Broker) For(u *auth.User) *View { return &View{b, u} }

func (v *View) may(op auth.Op, full string) error {
	vhost, name := fullname.Split(full)
	return v.auth.Authorize(v.user, vhost, op, name)
}

// see returns nil for users with any permission on the queue, and for monitors.
func (v *View) see(full string) error {
	vhost, _ := fullname.Split(full)
	if v.auth.AuthorizeMonitor(v.user) == nil && v.auth.VhostExists(vhost) {
		return nil
	}
	err := v.may(auth.Read, full)
	if surgetank.CodeOf(err) == surgetank.CodeDenied && (v.may(auth.Write, full) == nil || v.may(auth.Configure, full) == nil) {
		return nil
	}
	return err
}

func (v *View) mayWrite(msgs []surgetank.Publishing) error {
	last := ""
	for i := range msgs {
		for _, q := range msgs[i].Queues {
			if q == last {
				continue // usually many messages name the same queue
			}
			if err := v.may(auth.Write, q); err != nil {
				return err
			}
			last = q
		}
	}
	return nil
}

// Publish stores messages. See surgetank.Broker.
func (v *View) Publish(ctx context.Context, msgs []surgetank.Publishing) ([]surgetank.PublishResult, error) {
	if err := v.mayWrite(msgs); err != nil {
		return nil, err
	}
	return v.Broker.Publish(ctx, msgs)
}

// PublishAsync stores messages. See surgetank.Broker.
func (v *View) PublishAsync(ctx context.Context, msgs []surgetank.Publishing, done func([]surgetank.PublishResult, error)) error {
	if err := v.mayWrite(msgs); err != nil {
		return err
	}
	return v.Broker.PublishAsync(ctx, msgs, done)
}

// Transact publishes and settles as one. See surgetank.Broker.
func (v *View) Transact(ctx context.Context, msgs []surgetank.Publishing, s []surgetank.Settlement) ([]surgetank.PublishResult, error) {
	if err := v.mayWrite(msgs); err != nil {
		return nil, err
	}
	return v.Broker.Transact(ctx, msgs, s)
}

// Subscribe attaches a consumer. See surgetank.Broker.
func (v *View) Subscribe(ctx context.Context, queue string, o surgetank.SubscribeOptions) (surgetank.Subscription, error) {
	return v.Attach(ctx, queue, door.SubscribeOptions{SubscribeOptions: o})
}

// Attach attaches a consumer of a door. See door.Broker.
func (v *View) Attach(ctx context.Context, queue string, o door.SubscribeOptions) (door.Subscription, error) {
	if err := v.may(auth.Read, queue); err != nil {
		return nil, err
	}
	return v.Broker.Attach(ctx, queue, o)
}

// History reads a queue's history. See door.Broker.
func (v *View) History(ctx context.Context, queue string, count ...door.NumberRange) (door.History, error) {
	if err := v.may(auth.Read, queue); err != nil {
		return door.History{}, err
	}
	return v.Broker.History(ctx, queue, count...)
}

// Receive leases messages. See surgetank.Broker.
func (v *View) Receive(ctx context.Context, queue string, o surgetank.ReceiveOptions) ([]surgetank.Delivery, error) {
	if err := v.may(auth.Read, queue); err != nil {
		return nil, err
	}
	return v.Broker.Receive(ctx, queue, o)
}

// Peek shows messages. See surgetank.Broker.
func (v *View) Peek(ctx context.Context, queue string, o surgetank.PeekOptions) ([]surgetank.Delivery, error) {
	if err := v.may(auth.Read, queue); err != nil {
		return nil, err
	}
	return v.Broker.Peek(ctx, queue, o)
}

// Explain says why messages wait. Monitors may see it, too. See surgetank.Administrator.
func (v *View) Explain(ctx context.Context, queue string, o surgetank.ExplainOptions) (surgetank.Explanation, error) {
	if vhost, _ := fullname.Split(queue); v.auth.AuthorizeMonitor(v.user) != nil || !v.auth.VhostExists(vhost) {
		if err := v.may(auth.Read, queue); err != nil {
			return surgetank.Explanation{}, err
		}
	}
	return v.Broker.Explain(ctx, queue, o)
}

// PurgeQueue drops messages. See surgetank.Broker.
func (v *View) PurgeQueue(ctx context.Context, name string) (int64, error) {
	if err := v.may(auth.Read, name); err != nil {
		return 0, err
	}
	return v.Broker.PurgeQueue(ctx, name)
}

// DropDamaged drops damaged messages. See surgetank.Broker.
func (v *View) DropDamaged(ctx context.Context, name string) (int64, error) {
	if err := v.may(auth.Read, name); err != nil {
		return 0, err
	}
	return v.Broker.DropDamaged(ctx, name)
}

// mayDeclare checks the rights for a declaration. Dead letters are later moved from the queue to
// its dead-letter queue without another check. So the user needs rights to both queues, even if the
// dead-letter queue is the default one.
func (v *View) mayDeclare(full string, c *surgetank.QueueConfig) error {
	if err := v.may(auth.Configure, full); err != nil || c == nil {
		return err
	}
	dead := c.DeadLetter
	switch {
	case dead == surgetank.DeadLetterDrop || IsPassage(dead):
		return nil // the door that serves the passage checks the rights to its exchanges
	case dead == "":
		dead = full + surgetank.DeadLetterSuffix
	}
	err := v.may(auth.Read, full)
	if err == nil {
		err = v.may(auth.Write, dead)
	}
	if surgetank.CodeOf(err) != surgetank.CodeDenied {
		return err
	}
	_, name := fullname.Split(full)
	_, deadName := fullname.Split(dead)
	return &surgetank.Error{Code: surgetank.CodeDenied, Field: "dead_letter", Err: err, Message: "queue " + quote(name) + " would send its dead letters to " + quote(deadName) +
		", and " + err.Error() + "; or set dead_letter to \"-\" to drop them, or to a queue that the user may write to"}
}

func quote(s string) string {
	if len(s) > 60 {
		s = s[:60] + "…"
	}
	return "\"" + s + "\""
}

// DeclareQueue makes or changes a queue. See surgetank.Broker.
func (v *View) DeclareQueue(ctx context.Context, name string, c surgetank.QueueConfig, mode surgetank.DeclareMode) (surgetank.QueueInfo, bool, error) {
	if err := v.mayDeclare(name, &c); err != nil {
		return surgetank.QueueInfo{}, false, err
	}
	return v.Broker.DeclareQueue(v.named(ctx), name, c, mode)
}

// Change creates or changes a queue, based on its declared settings. See Broker.Change.
func (v *View) Change(ctx context.Context, name string, f func(now *surgetank.QueueInfo) (surgetank.QueueConfig, error)) (surgetank.QueueInfo, bool, error) {
	if err := v.mayDeclare(name, nil); err != nil {
		return surgetank.QueueInfo{}, false, err
	}
	return v.Broker.Change(v.named(ctx), name, func(now *surgetank.QueueInfo) (surgetank.QueueConfig, error) {
		c, err := f(now)
		if err == nil && (now == nil || now.Declared().DeadLetter != c.DeadLetter) { // the rights to an unchanged dead-letter queue were checked at an earlier declaration
			err = v.mayDeclare(name, &c)
		}
		return c, err
	})
}

// DeleteQueue removes a queue. See surgetank.Broker.
func (v *View) DeleteQueue(ctx context.Context, name string, o surgetank.DeleteOptions) (int64, error) {
	if err := v.may(auth.Configure, name); err != nil {
		return 0, err
	}
	return v.Broker.DeleteQueue(ctx, name, o)
}

// PauseQueue stops deliveries. See surgetank.Broker.
func (v *View) PauseQueue(ctx context.Context, name string, d time.Duration) error {
	if err := v.may(auth.Configure, name); err != nil {
		return err
	}
	return v.Broker.PauseQueue(v.named(ctx), name, d)
}

// ResumeQueue ends a pause. See surgetank.Broker.
func (v *View) ResumeQueue(ctx context.Context, name string) error {
	if err := v.may(auth.Configure, name); err != nil {
		return err
	}
	return v.Broker.ResumeQueue(ctx, name)
}

// OpenBreaker stops deliveries to a target, in the name of the user. See surgetank.Broker.
func (v *View) OpenBreaker(ctx context.Context, name string, o surgetank.BreakerOptions) error {
	if err := v.may(auth.Configure, name); err != nil {
		return err
	}
	o.By = v.by(o.By)
	return v.Broker.OpenBreaker(ctx, name, o)
}

// CloseBreaker ends an outage, in the name of the user. See surgetank.Broker.
func (v *View) CloseBreaker(ctx context.Context, name string, o surgetank.BreakerOptions) error {
	if err := v.may(auth.Configure, name); err != nil {
		return err
	}
	o.By = v.by(o.By)
	return v.Broker.CloseBreaker(ctx, name, o)
}

// named returns a context whose calls are in the name of the user.
func (v *View) named(ctx context.Context) context.Context {
	if name := v.by(""); name != "" {
		ctx = door.WithUser(ctx, name)
	}
	return ctx
}

// by returns the name of the user; other if there is none.
func (v *View) by(other string) string {
	if v.user != nil {
		return v.user.Name
	}
	return other
}

// LevelHistory reads the history of a limit. See surgetank.Broker.
func (v *View) LevelHistory(ctx context.Context, name string) (surgetank.LevelHistory, error) {
	if _, err := v.Queue(ctx, name); err != nil {
		return surgetank.LevelHistory{}, err
	}
	return v.Broker.LevelHistory(ctx, name)
}

// Redrive moves messages. If no queue is named and each message moves to the queue where it died,
// any queue of the virtual host can get messages. Then the user needs the right to write to all of
// them. See surgetank.Broker.
func (v *View) Redrive(ctx context.Context, from string, o surgetank.RedriveOptions) (surgetank.RedriveResult, error) {
	none := surgetank.RedriveResult{}
	if err := v.may(auth.Read, from); err != nil {
		return none, err
	}
	to := o.To
	if to == "" {
		to = o.Queue
	}
	if to != "" {
		if err := v.may(auth.Write, to); err != nil {
			return none, err
		}
		return v.Broker.Redrive(ctx, from, o)
	}
	all, err := v.Broker.Queues(ctx)
	if err != nil {
		return none, err
	}
	here, _ := fullname.Split(from)
	for i := range all {
		if vhost, _ := fullname.Split(all[i].Name); vhost == here {
			if err := v.may(auth.Write, all[i].Name); err != nil {
				return none, err
			}
		}
	}
	return v.Broker.Redrive(ctx, from, o)
}

// Queue reads one queue. See surgetank.Broker.
func (v *View) Queue(ctx context.Context, name string) (surgetank.QueueInfo, error) {
	if err := v.see(name); err != nil {
		return surgetank.QueueInfo{}, err
	}
	return v.Broker.Queue(ctx, name)
}

// Queues reads the queues that the user may see. See surgetank.Broker.
func (v *View) Queues(ctx context.Context) ([]surgetank.QueueInfo, error) {
	all, err := v.Broker.Queues(ctx)
	if err != nil && !door.IsPartial(err) {
		return nil, err
	}
	shown := all[:0]
	for i := range all {
		if v.see(all[i].Name) == nil {
			shown = append(shown, all[i])
		}
	}
	return shown, err
}

// SetMeta stores a door's value. See door.Broker.
func (v *View) SetMeta(ctx context.Context, namespace, name string, value []byte) error {
	if err := v.auth.AuthorizeAdmin(v.user); err != nil {
		return err
	}
	return v.Broker.SetMeta(ctx, namespace, name, value)
}

// SetMetaIf stores a door's value under a condition. See door.Metadata.
func (v *View) SetMetaIf(ctx context.Context, namespace, name string, value []byte, expected uint64) (uint64, error) {
	if err := v.auth.AuthorizeAdmin(v.user); err != nil {
		return 0, err
	}
	return v.Broker.SetMetaIf(ctx, namespace, name, value, expected)
}

// SetMetaLater stores a door's value. See door.Broker.
func (v *View) SetMetaLater(queue, name string, value []byte) error {
	if err := v.auth.AuthorizeAdmin(v.user); err != nil {
		return err
	}
	return v.Broker.SetMetaLater(queue, name, value)
}

// Meta reads a door's values. See door.Broker.
func (v *View) Meta(ctx context.Context, namespace string) (door.MetaState, error) {
	if err := v.auth.AuthorizeAdmin(v.user); err != nil {
		return door.MetaState{}, err
	}
	return v.Broker.Meta(ctx, namespace)
}

// WatchMeta watches a door's values. The right is checked once. See door.Metadata.
func (v *View) WatchMeta(ctx context.Context, namespace string, feed *door.MetaFeed) (stop func(), err error) {
	if err := v.auth.AuthorizeAdmin(v.user); err != nil {
		return nil, err
	}
	return v.Broker.WatchMeta(ctx, namespace, feed)
}
