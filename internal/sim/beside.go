package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/queue/model"
	"github.com/surgetank/surgetank/internal/settings"
)

// beside runs the naive model next to the broker's machine. Model and machine run every turn, and
// their hand-outs, answers and state must be equal. beside keeps the model's durable state after
// every entry. So the state that is recovered after a crash can be compared, message by message,
// with the state at the same entry.
type beside struct {
	w         *world
	m         *model.Model            // nil: there is nothing to compare with at present
	states    map[uint64]*model.Model // by entry; nil if the entry ended in the middle of a command
	newest    uint64                  // number of the newest entry
	lost      bool                    // the model could not follow an event, so it is not used any more
	open      bool                    // the turn at the time now left work that is due at once
	now       int64
	consumers map[uint64]*model.Consumer
	leases    map[uint64]model.Lease // by number in this epoch
	queues    map[uint64]string      // names by id, as of the last comparison
	outs      []model.Out
	ended     []uint64
	back      map[*queue.Detach][]surgetank.Receipt // the receipts of a Detach, which removes them while it runs
}

func newBeside(w *world) *beside {
	s := &beside{w: w, states: map[uint64]*model.Model{}, queues: map[uint64]string{}, back: map[*queue.Detach][]surgetank.Receipt{}}
	if w.o.Model {
		m := model.New()
		if w.o.RetryReserve > 0 {
			m.RetryReserve = w.o.RetryReserve
		}
		s.states[0] = m
	}
	return s
}

// detach records the receipts of a Detach before the broker runs the command.
func (s *beside) detach(c *queue.Detach) *queue.Detach {
	s.back[c] = slices.Clone(c.Return)
	return c
}

// turn is called for every turn of the broker.
func (s *beside) turn(t broker.Turn) {
	w := s.w
	w.dog.step()
	w.tally(&t)
	if len(t.Commands) > 0 {
		if _, opening := t.Commands[0].(*queue.OpenEpoch); opening {
			s.opened(t.Number-1, t.Now)
		}
	}
	s.newest = t.Number
	if s.m == nil {
		return
	}
	if s.open && t.Now != s.now { // on a slow disk the machine could not finish at that time; the model did
		s.m, s.lost = nil, true
		w.count.one(ModelLost)
		return
	}
	m := s.m
	for _, l := range t.Left {
		m.Released(l.Turn, l.At)
	}
	m.Full, m.TurnNo = t.Machine.Full(), t.Output.Turn
	m.Turn(t.Now, func() {
		for _, c := range t.Commands {
			s.do(c)
		}
	})
	for i := range t.Output.Handouts {
		s.handedOut(&t.Output.Handouts[i])
	}
	for _, e := range t.Output.Ended {
		s.ended = append(s.ended, e.Consumer)
	}
	settled := t.Machine.NextDeadline() > t.Now && !t.Split
	s.open, s.now = !settled, t.Now
	if settled {
		s.compare(t.Machine)
	}
	if t.Output.Records > 0 {
		if s.states[t.Number] = nil; settled {
			s.states[t.Number] = m.Durable()
		}
	}
}

// opened starts the comparison after an opening, with the broker's first turn at the time now. The
// broker has recovered the state up to the entry, which is included, possibly some time before.
func (s *beside) opened(entry uint64, now int64) {
	w := s.w
	if entry < w.logged {
		w.ledger.violation("nothing confirmed is lost", "the log confirmed entry %d, and only what is up to %d was recovered", w.logged, entry)
	}
	if w.flying && entry > w.logged && entry < s.newest {
		w.count.one(PrefixesInFlight)
	}
	w.logged, w.flying = 0, false
	state, known := s.states[entry]
	switch {
	case !known && w.o.Model && !s.lost:
		w.ledger.violation("nothing is invented", "entry %d was recovered, and the newest that was written is %d", entry, s.newest)
	case state == nil:
		if s.m = nil; w.o.Model && !s.lost {
			s.lost = true // the entry ended in the middle of a command that the model runs at once
			w.count.one(ModelLost)
		}
	default:
		s.m = state.Durable()
		s.m.Crash(w.recovered)
		s.m.Opened(now)
		w.count.one(StatesCompared)
	}
	s.open = false
	s.states = map[uint64]*model.Model{entry: state}
	s.consumers, s.leases, s.outs, s.ended = map[uint64]*model.Consumer{}, map[uint64]model.Lease{}, nil, nil
	clear(s.back)
}

func (s *beside) handedOut(h *queue.Handout) {
	s.outs = append(s.outs, model.Out{Queue: h.Queue.Name(), Consumer: h.Consumer, Seq: h.Seq, Group: h.Group, Attempt: h.Attempt, Redelivered: h.Redelivered,
		Leased: h.Lease != 0, Deadline: h.Deadline, Deaths: -1})
	if h.Lease != 0 {
		s.leases[h.Lease], _ = s.m.Lease(h.Queue.Name(), h.Seq) // if the model has no lease, compare finds it
	}
}

// compare compares the hand-outs since the last call, and all counts.
func (s *beside) compare(machine *queue.Machine) {
	m := s.m
	s.w.count.one(TurnsCompared)
	byQueue := func(x, y model.Out) int { return strings.Compare(x.Queue, y.Queue) }
	slices.SortStableFunc(s.outs, byQueue)
	slices.SortStableFunc(m.Outs, byQueue)
	for i := range m.Outs {
		m.Outs[i].Deaths = -1 // deaths are compared where the message is read
	}
	if !slices.Equal(s.outs, m.Outs) {
		s.differ("hand-outs", s.outs, m.Outs)
	}
	slices.Sort(s.ended)
	slices.Sort(m.Ended)
	if !slices.Equal(s.ended, m.Ended) {
		s.differ("ended consumers", s.ended, m.Ended)
	}
	s.outs, s.ended, m.Outs, m.Ended = s.outs[:0], s.ended[:0], m.Outs[:0], m.Ended[:0]
	s.w.ledger.checks += 2
	infos := machine.Infos()
	clear(s.queues)
	for i := range infos {
		s.queues[infos[i].ID] = infos[i].Name
		if q := m.Queues[infos[i].Name]; q != nil {
			if why := q.Control.Differs(machine.Control(q.Name)); why != "" {
				s.w.ledger.violation("agrees with the model", "queue %s: %s", q.Name, why)
			}
		}
	}
	if why := differs(infos, m); why != "" {
		s.w.ledger.violation("agrees with the model", "%s", why)
	}
}

func (s *beside) differ(what string, machine, model any) {
	s.w.ledger.violation("agrees with the model", "%s: the machine has %+v, the model %+v", what, machine, model)
}

// differs names the first queue whose statistics differ from the model's. It returns "" if there is
// none.
func differs(infos []surgetank.QueueInfo, m *model.Model) string {
	if len(infos) != len(m.Queues) {
		return fmt.Sprintf("the machine has %d queues, the model %v", len(infos), m.Names())
	}
	for i := range infos {
		got := &infos[i]
		q := m.Queues[got.Name]
		if q == nil {
			return fmt.Sprintf("queue %s is unknown to the model", got.Name)
		}
		want := q.Info()
		if got.Ready != want.Ready || got.Blocked != want.Blocked || got.Delayed != want.Delayed || got.Leased != want.Leased || got.Damaged != want.Damaged || got.Bytes != want.Bytes ||
			*door.QueueFloor(got) != *door.QueueFloor(&want) || got.Groups != want.Groups || got.Consumers != want.Consumers ||
			got.OldestAge != want.OldestAge || got.BackingOff != want.BackingOff || got.NextTry != want.NextTry || got.Failure != want.Failure || got.PausedBy != want.PausedBy || got.PausedAt != want.PausedAt || !settings.Equal(got.Config, q.Config) {
			return fmt.Sprintf("queue %s:\nmachine %+v\nmodel   %+v %+v", got.Name, *got, want, q.Config)
		}
	}
	return ""
}

// answer compares the outcome of a command.
func (s *beside) answer(c queue.Command, err error, code surgetank.Code, got, want any) {
	s.w.ledger.checks++
	if surgetank.CodeOf(err) != code || got != want {
		s.w.ledger.violation("agrees with the model", "%T %+v: the machine answered %v (%v), the model %v (%q)", c, c, got, err, want, code)
	}
}

func (s *beside) lease(r surgetank.Receipt) model.Lease {
	if r.Epoch != s.w.b.Epoch() {
		return model.Lease{}
	}
	return s.leases[r.Lease]
}
