package sim

import (
	"math/rand/v2"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
)

func (w *world) admin(kind string, rng *rand.Rand) {
	name := w.anyQueue(rng)
	w.tracef("%s %s", kind, name)
	switch kind {
	case "pause":
		w.count.one(Paused)
		c := &queue.Pause{Name: name, Paused: rng.IntN(3) == 0, By: pick(rng, []string{"", "ann", "bob"})}
		if rng.IntN(2) == 0 {
			c.For = time.Duration(1+rng.IntN(5000)) * time.Millisecond
		}
		w.send(c, func(error) {})
	case "breaker":
		w.count.one(BreakerSet)
		w.send(&queue.SetBreaker{Name: name, Open: rng.IntN(2) == 0, By: "ann"}, func(error) {})
	case "report":
		w.count.one(TargetReports)
		w.send(&queue.ReportTarget{Name: name, Report: door.TargetReport{Up: rng.IntN(3) == 0, RetryAfter: time.Duration(rng.IntN(3)) * time.Second}}, func(error) {})
	case "configure":
		w.count.one(Configured)
		p := pick(rng, w.o.Queues)
		c := p.Config
		c.Group.Fair, c.Group.Weights = rng.IntN(2) == 0, nil
		drawOrder(&c, rng, func(percent int) bool { return rng.IntN(100) < percent })
		c.Level.MaxInFlight = rng.IntN(5)
		c.Level.Rate = surgetank.Rate(rng.IntN(3) * 5)
		drawControl(&c, rng, func(percent int) bool { return rng.IntN(100) < percent })
		w.send(&queue.Declare{Name: p.Name, Config: c, Mode: surgetank.DeclareUpdate}, func(error) {})
	case "meta":
		w.meta(rng)
	case "peek":
		life := w.life
		ds, err := w.b.Peek(background, name, surgetank.PeekOptions{Max: 1 + rng.IntN(20)})
		if !w.ok(life) || w.b.Err() != nil {
			return
		}
		w.count.one(Peeks)
		if err != nil && surgetank.CodeOf(err) != surgetank.CodeNotFound && !w.blamed() {
			w.ledger.violation("readable", "a peek into %s failed: %v", name, err)
		}
		for i := range ds {
			if ds[i].Damage == "" {
				w.ledger.copyOf(&ds[i])
			} else if !w.blamed() {
				w.ledger.violation("readable", "a peek into %s shows message %v as damaged: %s", name, ds[i].ID, ds[i].Damage)
			}
		}
	case "redrive":
		o := surgetank.RedriveOptions{Max: int64(rng.IntN(4)), DryRun: rng.IntN(5) == 0}
		if rng.IntN(3) == 0 {
			o.To = pick(rng, w.o.Queues).Name
			for _, m := range w.ledger.order { // the rules of the other queue can end these messages
				m.excused = m.excused || w.plan(o.To).Lossy
			}
		}
		_, _ = w.b.Redrive(background, pick(rng, w.o.Queues).Dead(), o) // after an error the messages are still there
	case "purge":
		w.ledger.excuse(name)
		_, _ = w.b.PurgeQueue(background, name) // after an error the messages are still there
	case "delete":
		p := pick(rng, w.o.Queues)
		w.ledger.excuse(p.Name)
		w.send(&queue.Delete{Name: p.Name, Opts: surgetank.DeleteOptions{IfUnused: rng.IntN(4) == 0, IfEmpty: rng.IntN(4) == 0}}, func(error) {})
		w.declare(p.Name, p.Config)
	case "transact":
		w.transact(rng)
	}
}
