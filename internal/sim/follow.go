package sim

import (
	"maps"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/queue/model"
)

// do runs the machine's command on the model, and compares the answers.
func (s *beside) do(cmd queue.Command) {
	m := s.m
	switch c := cmd.(type) {
	case *queue.Publish:
		for i := range c.Msgs {
			s.publish(c, i, false)
		}
	case *queue.Settle:
		for i := range c.Items {
			s.settle(c, i)
		}
	case *queue.Transact:
		s.transact(c)
	case *queue.Attach:
		mc, code := m.Attach(c.Queue, c.Consumer, c.Opts, c.Once, c.Now)
		if s.answer(c, c.Err, code, nil, nil); code == "" {
			s.consumers[c.Consumer] = mc
		}
	case *queue.Detach:
		if mc := s.consumers[c.Consumer]; mc != nil {
			var back []uint64
			for _, r := range s.back[c] {
				if l := s.lease(r); m.Lives(l) && l.Holds(mc) {
					back = append(back, l.Seq())
				}
			}
			m.Detach(mc, back, c.All)
		}
	case *queue.Credit:
		if mc := s.consumers[c.Consumer]; mc != nil {
			m.Credit(mc, c.N)
		}
	case *queue.Stop:
		if mc := s.consumers[c.Consumer]; mc != nil {
			m.Stop(mc)
		}
	case *queue.PoolLimit:
		m.PoolLimit(c.Pool, c.Limit)
	case *queue.Quarantine:
		done := !c.NoAck && m.Quarantine(s.queues[c.ID.Queue], c.ID.Seq, s.leases[c.Lease], c.Retry)
		if s.answer(c, nil, "", c.Done, done); done {
			s.w.count.one(Unreadable)
		}
	default:
		s.manage(cmd)
	}
}

// manage runs commands about whole queues on the model.
func (s *beside) manage(cmd queue.Command) {
	m := s.m
	missing := func(name string) (*model.Queue, surgetank.Code) {
		if q := m.Queues[name]; q != nil {
			return q, ""
		}
		return nil, surgetank.CodeNotFound
	}
	switch c := cmd.(type) {
	case *queue.Declare:
		q, code := missing(c.Name)
		switch {
		case c.Mode == surgetank.DeclareUpdate && q == nil:
		case c.Mode == surgetank.DeclareNew && q != nil:
			code = surgetank.CodeExists
		default:
			if code = ""; q == nil || c.Mode != surgetank.DeclareIfAbsent {
				m.Declare(c.Name, c.Config)
			}
		}
		s.answer(c, c.Err, code, c.Created, code == "" && q == nil)
	case *queue.Pause:
		q, code := missing(c.Name)
		if q != nil {
			m.Pause(q, c.Paused, c.For, c.By)
		}
		s.answer(c, c.Err, code, nil, nil)
	case *queue.SetBreaker:
		q, code := missing(c.Name)
		if q != nil {
			code = m.Breaker(q, c.Open, c.By, c.Why)
		}
		s.answer(c, c.Err, code, nil, nil)
	case *queue.ReportTarget:
		q, code := missing(c.Name)
		if q != nil {
			m.ReportTarget(q, c.Report)
		}
		s.answer(c, c.Err, code, nil, nil)
	case *queue.Purge:
		q, code := missing(c.Name)
		var n int64
		switch {
		case c.Err == nil && c.Last.Below == 0:
			code = "" // the queue was deleted between two turns
		case q != nil:
			n = m.Purge(q, c.Last.From, c.Last.Below)
		}
		s.answer(c, c.Err, code, c.Last.Dropped, n)
	case *queue.Delete:
		q, code := missing(c.Name)
		var n int64
		if q != nil {
			i := q.Info()
			if c.Opts.IfUnused && i.Consumers > 0 || c.Opts.IfEmpty && i.Ready+i.Blocked+i.Delayed+i.Damaged > 0 {
				code = surgetank.CodeExists
			} else {
				n = m.Delete(q)
				maps.DeleteFunc(s.queues, func(_ uint64, name string) bool { return name == c.Name })
			}
		}
		s.answer(c, c.Err, code, c.Removed, n)
	case *queue.Redrive:
		q, code := missing(c.From)
		if code == "" && c.Opts.To != "" {
			_, code = missing(c.Opts.To)
		}
		var r surgetank.RedriveResult
		if code == "" {
			r = m.Redrive(q, c.Opts)
		}
		s.answer(c, c.Err, code, c.Result, r)
	case *queue.SetMeta:
		code, version := m.SetMeta(model.MetaKey{Namespace: c.Namespace, Name: c.Name}, c.Value, c.Conditional, c.Expected, c.Version)
		if s.answer(c, c.Err, code, c.Version, version); code == "" && c.Value != nil && queue.Ref(c.Version).Entry() != s.newest {
			s.differ("the entry of a change of metadata", queue.Ref(c.Version).Entry(), s.newest)
		}
	case *queue.Meta:
		values := map[string]model.MetaValue{}
		for name, v := range c.State.Values {
			values[name] = model.MetaValue{Value: string(v.Value), Version: v.Version}
		}
		if want := m.Meta(c.Namespace); !maps.Equal(values, want) || c.State.Version != m.Metas.Newest {
			s.differ("metadata", c.State, m.Metas)
		}
		s.w.ledger.checks++
	}
}

// keysOf returns a message's coalescing keys in the form of the model.
func keysOf(in *queue.Incoming) (keys []model.Key) {
	for _, k := range in.Keys {
		key := model.Key{Group: k.Group}
		if k.Hash != (queue.CoalesceKey{}) {
			key.ID = string(k.Hash[:])
		}
		keys = append(keys, key)
	}
	return keys
}

func (s *beside) publish(c *queue.Publish, i int, admitted bool) {
	in, r := &c.Msgs[i], &c.Results[i]
	type answer struct {
		seq uint64
		dup bool
	}
	got := answer{r.ID.Seq, r.Duplicate}
	if in.Publisher == "" {
		code, seq, dup := s.m.Publish(&in.Message, in.Queues, in.Groups, keysOf(in), admitted)
		s.answer(c, r.Err, code, got, answer{seq, dup})
		return
	}
	code, seq, dup := s.m.PublishNumbered(in.Publishing, in.Groups, keysOf(in))
	if dup && got.seq == 0 { // the machine need not know the first copy's number any more
		seq = 0
	}
	s.answer(c, r.Err, code, got, answer{seq, dup})
}

func (s *beside) settle(c *queue.Settle, i int) {
	item := &c.Items[i]
	l := s.lease(item.Receipt)
	code := surgetank.Code("")
	if s.m.Lives(l) {
		l.Settle(item, c.At)
	} else {
		code = surgetank.CodeLeaseLost
	}
	s.answer(c, c.Results[i], code, nil, nil)
}

func (s *beside) transact(c *queue.Transact) {
	leases := make([]model.Lease, len(c.Settle.Items))
	for i := range leases {
		leases[i] = s.lease(c.Settle.Items[i].Receipt)
	}
	ps := make([]surgetank.Publishing, len(c.Publish.Msgs))
	for i := range ps {
		ps[i] = *c.Publish.Msgs[i].Publishing
	}
	code := s.m.Refused(ps, leases)
	s.answer(c, c.Err, code, nil, nil)
	if code != "" || c.Err != nil {
		return
	}
	for i := range leases {
		leases[i].Settle(&c.Settle.Items[i], c.Settle.At)
	}
	for i := range c.Publish.Msgs {
		s.publish(&c.Publish, i, true)
	}
}
