package topology

import (
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/settings"
)

// Open finds a queue that owner, a connection, may use.
func (vh *Vhost) Open(owner any, name string) (*Queue, error) {
	q, err := vh.Find(name)
	if err != nil {
		return nil, err
	}
	if q == nil {
		return nil, vh.NoQueue(name)
	}
	if q.Attrs().Exclusive && q.Owner != owner {
		return nil, vh.Locked(name)
	}
	return q, nil
}

// Touch notes a use of the queue, for x-expires.
func (q *Queue) Touch() {
	if q.Attrs().Expires > 0 {
		q.Vhost.mu.Lock()
		q.lastUse = q.Vhost.env.Clock.Passed()
		q.Vhost.mu.Unlock()
	}
}

// DeclareQueue makes a queue, or checks that an existing one matches want. For an empty name the
// server makes a name. owner is the connection that declares it. may reports whether the connection
// may use the dead-letter settings. It is called only for a new queue.
func (vh *Vhost) DeclareQueue(name string, want translate.QueueAttrs, owner any, may func(translate.QueueAttrs) error) (*Queue, error) {
	generated := name == ""
	if generated {
		name = translate.RandomName("amq.gen-")
	}
	defer vh.lock(queueStripe(name))()
	if !generated {
		q, err := vh.Find(name)
		if err != nil {
			return nil, err
		}
		if q != nil {
			return vh.redeclare(q, want, owner)
		}
		if strings.HasPrefix(name, translate.ReservedPrefix) {
			return nil, wire.Errorf(wire.CodeAccessRefused, "queue name '%s' contains reserved prefix 'amq.*'", name)
		}
	}
	a, err := translate.ParseQueueArgs(want, translate.DescribeQueue(name, vh.Name))
	if err != nil {
		return nil, err
	}
	if generated && a.Quorum {
		return nil, wire.Errorf(wire.CodePreconditionFailed, "Cannot declare a server-named queue for type rabbit_quorum_queue")
	}
	if err := may(a); err != nil {
		return nil, err
	}
	return vh.makeQueue(name, a, owner)
}

// redeclare checks a declaration of an existing queue.
func (vh *Vhost) redeclare(q *Queue, want translate.QueueAttrs, owner any) (*Queue, error) {
	where := translate.DescribeQueue(q.Name, q.Vhost.Name)
	if q.Attrs().Exclusive != want.Exclusive && !q.Attrs().Foreign || q.Attrs().Exclusive && q.Owner != owner {
		return nil, vh.Locked(q.Name)
	}
	if !q.Attrs().Foreign {
		return q, translate.EquivalentQueue(*q.own(), want, where)
	}
	// The queue belongs to another door, or this door lost its record in a crash. If the
	// declaration would make exactly this queue, the queue becomes this door's.
	a, err := translate.ParseQueueArgs(want, where)
	if err == nil && (len(a.Args) > 0 || a.AutoDelete) {
		info, err := vh.env.Broker.Queue(vh.env.Context, q.Full)
		if err == nil && settings.Equal(info.Declared(), translate.QueueConfig(vh.Name, a)) {
			return q, vh.own(q, a)
		}
	}
	return q, translate.CompatibleQueue(*q.own(), want, where)
}

// Ghost reports whether another door has deleted a queue that this door knows. If so, Ghost forgets
// the queue. The caller holds no stripe.
func (vh *Vhost) Ghost(q *Queue) bool {
	info, err := vh.env.Broker.Queue(vh.env.Context, q.Full)
	if surgetank.CodeOf(err) == surgetank.CodeNotFound || err == nil && info.ID != q.ID {
		vh.Forget(q)
		return true
	}
	return false
}

// own marks a queue as declared by this door, with these settings.
func (vh *Vhost) own(q *Queue, a translate.QueueAttrs) error {
	n := vh.newQueue(q.Name, q.ID, a)
	if a.Durable && !a.Exclusive && (len(a.Args) > 0 || a.AutoDelete) {
		if err := vh.saveQueue(n); err != nil {
			return err
		}
	}
	if a.Quorum {
		if err := vh.env.Policies.MakeQuorum(vh.env.Context, q.Full); err != nil {
			return err
		}
	}
	vh.mu.Lock()
	q.setDeclared(&a)
	vh.changed()
	vh.mu.Unlock()
	return nil
}

// makeQueue makes a queue. The caller holds its stripe.
func (vh *Vhost) makeQueue(name string, a translate.QueueAttrs, owner any) (*Queue, error) {
	// Check the name alone, because a full name would reach another virtual host.
	if err := surgetank.ValidateName("queue", name); err != nil {
		return nil, err
	}
	full := fullname.Of(vh.Name, name)
	vh.env.Policies.SetQuorum(full, a.Quorum)
	if inForce := vh.under(name, a); inForce.HasDLX || inForce.Overflow == translate.OverflowRejectDLX {
		if err := vh.startDeadLetters(); err != nil {
			return nil, err
		}
	}
	ctx := policy.WithOwner(vh.env.Context, owner)
	var info surgetank.QueueInfo
	var created bool
	var err error
	if a.Exclusive {
		info, created, err = vh.env.Policies.DeclareExclusive(ctx, full, translate.QueueConfig(vh.Name, a))
	} else {
		info, created, err = vh.env.Broker.DeclareQueue(ctx, full, translate.QueueConfig(vh.Name, a), surgetank.DeclareIfAbsent)
	}
	if err != nil {
		return nil, err
	}
	if !created { // another door declared it meanwhile
		vh.env.Policies.SetQuorum(full, false)
		return vh.redeclare(vh.adopt(info), a, owner)
	}
	q := vh.newQueue(name, info.ID, a)
	if a.Durable && !a.Exclusive && (len(a.Args) > 0 || a.AutoDelete) {
		vh.setMaking(name, true)
		defer vh.setMaking(name, false)
		if err := vh.saveQueue(q); err != nil {
			if _, err := vh.env.Broker.DeleteQueue(vh.env.Context, full, surgetank.DeleteOptions{IfEmpty: true}); err != nil {
				vh.env.Log.Warn("the settings of a queue could not be saved, and the queue could not be deleted", "queue", name, "vhost", vh.Name, "err", err)
			}
			return nil, err
		}
	}
	vh.mu.Lock()
	gone := vh.gone
	if !gone {
		if old := vh.queues[name]; old != nil && old.ID == q.ID && !a.Exclusive {
			q = old // another program's binding was faster
		}
		if a.Exclusive {
			q.Owner = owner
		}
		q.setDeclared(&a) // again: policies may have changed since
		vh.queues[name] = q
		delete(vh.retired, full)
		vh.changed()
	}
	vh.mu.Unlock()
	if gone {
		if _, err := vh.env.Broker.DeleteQueue(ctx, full, surgetank.DeleteOptions{}); err != nil {
			vh.env.Log.Warn("a queue of a deleted virtual host could not be deleted", "queue", name, "vhost", vh.Name, "err", err)
		}
		return nil, wire.Errorf(wire.CodeNotFound, "vhost '%s' is down", vh.Name)
	}
	return q, nil
}

// setMaking notes that the record of a queue is being stored, so that follow does not make the
// queue.
func (vh *Vhost) setMaking(name string, is bool) {
	vh.mu.Lock()
	defer vh.mu.Unlock()
	if is {
		vh.making[name] = true
	} else {
		delete(vh.making, name)
	}
}

// DeleteQueueIf deletes a queue if the conditions in opts are met, and returns the number of its
// ready messages.
func (vh *Vhost) DeleteQueueIf(q *Queue, opts surgetank.DeleteOptions) (int64, error) {
	unlock := vh.lock(queueStripe(q.Name))
	vh.mu.RLock()
	used, gone := len(q.consumers) > 0, q.gone
	vh.mu.RUnlock()
	if gone {
		unlock()
		return 0, nil
	}
	where := translate.DescribeQueue(q.Name, vh.Name)
	if opts.IfUnused && used {
		unlock()
		return 0, wire.Errorf(wire.CodePreconditionFailed, "%s in use", where)
	}
	ctx := vh.env.Context
	if q.Owner != nil {
		ctx = policy.WithOwner(ctx, q.Owner)
	}
	n, err := vh.env.Broker.DeleteQueue(ctx, q.Full, opts)
	switch surgetank.CodeOf(err) {
	case "", surgetank.CodeNotFound:
	case surgetank.CodeExists:
		unlock()
		if info, ierr := vh.env.Broker.Queue(vh.env.Context, q.Full); opts.IfEmpty && (ierr != nil || info.Consumers == 0 || !opts.IfUnused) {
			return 0, wire.Errorf(wire.CodePreconditionFailed, "%s not empty", where)
		}
		return 0, wire.Errorf(wire.CodePreconditionFailed, "%s in use", where)
	default:
		unlock()
		return 0, err
	}
	var t trash
	vh.mu.Lock()
	vh.removeQueue(q, &t)
	vh.mu.Unlock()
	unlock()
	vh.sweep(t)
	return n, nil
}

// DeleteQueue deletes a queue and all its messages. If the broker cannot do that now, the janitor
// deletes the queue later.
func (vh *Vhost) DeleteQueue(q *Queue) error {
	_, err := vh.DeleteQueueIf(q, surgetank.DeleteOptions{})
	if surgetank.Passing(err) {
		vh.mu.Lock()
		vh.doomed = append(vh.doomed, q)
		vh.mu.Unlock()
		return nil
	}
	return err
}

// DeleteDoomed deletes the queues that DeleteQueue could not delete. An auto-delete queue that has a
// consumer again stays. The janitor calls it.
func (vh *Vhost) DeleteDoomed() {
	for {
		vh.mu.Lock()
		if len(vh.doomed) == 0 {
			vh.mu.Unlock()
			return
		}
		q := vh.doomed[0]
		stays := q.gone || !q.Attrs().Exclusive && len(q.consumers) > 0
		vh.mu.Unlock()
		if !stays {
			if _, err := vh.DeleteQueueIf(q, surgetank.DeleteOptions{}); surgetank.Passing(err) {
				return
			} else if err != nil {
				vh.env.Log.Warn("a queue could not be deleted after its last use", "queue", q.Name, "vhost", vh.Name, "err", err)
			}
		}
		vh.mu.Lock()
		vh.doomed = vh.doomed[1:]
		vh.mu.Unlock()
	}
}
