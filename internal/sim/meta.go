package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
)

const metaSpace = "sim"

// metaWatch is a reader of metadata that watches every opening. It has the newest known version of
// each value, as a cache has.
type metaWatch struct {
	feed   *door.MetaFeed
	values map[string]door.MetaValue
}

// meta sets a value, with or without a condition, or reads all values. A condition is the version
// that the watch knows, or an older one.
func (w *world) meta(rng *rand.Rand) {
	name := fmt.Sprintf("m%d", rng.IntN(2))
	if rng.IntN(2) == 0 {
		w.serial++
		value := fmt.Sprint(w.serial)
		w.ledger.metaSent(name, value)
		c := &queue.SetMeta{Namespace: metaSpace, Name: name, Value: []byte(value)}
		if rng.IntN(3) > 0 {
			c.Conditional = true
			if c.Expected = w.metas.values[name].Version; rng.IntN(4) == 0 {
				c.Expected = w.metas.values["m0"].Version
			}
		}
		w.send(c, func(err error) {
			switch {
			case err != nil:
			case c.Err != nil:
				w.count.one(MetasRefused)
				w.ledger.metaRefused(name, value)
			default:
				w.ledger.metaSet(name, value)
				if w.ledger.metaVersion(name, c.Version); c.Conditional {
					w.ledger.metaReplaced(name, c.Expected)
				}
			}
		})
		return
	}
	w.readMeta()
}

func (w *world) readMeta() {
	possible := map[string][]string{}
	for name, values := range w.ledger.meta { // unordered: a copy
		possible[name] = slices.Clone(values)
	}
	c := &queue.Meta{Namespace: metaSpace}
	w.send(c, func(err error) {
		if err == nil {
			w.count.one(Metas)
			for _, name := range []string{"m0", "m1"} {
				w.ledger.metaRead(name, string(c.State.Values[name].Value), possible[name])
			}
		}
	})
}

// watchMeta starts the watch of an opening.
func (w *world) watchMeta() {
	w.metas = metaWatch{feed: door.NewMetaFeed(func() {}), values: map[string]door.MetaValue{}}
	_ = w.b.SendWatch(metaSpace, w.metas.feed) // after an error the feed stays empty
}

// metaSeen reads the watch. A value that the watch has passed is durable, so no crash may lose it.
func (w *world) metaSeen() {
	u, some := w.metas.feed.Take()
	if !some || w.disk.crashed() {
		return
	}
	if u.Whole {
		clear(w.metas.values)
	}
	for _, name := range []string{"m0", "m1"} {
		v, changed := u.Values[name]
		if !changed {
			continue
		}
		if v.Version <= w.metas.values[name].Version {
			w.ledger.violation("metadata", "the watch of %s passed version %d after %d", name, v.Version, w.metas.values[name].Version)
		}
		w.metas.values[name] = v
		if v.Version > w.ledger.metaLast[name] || u.Whole {
			w.ledger.metaVersion(name, v.Version)
		}
		w.count.one(MetasWatched)
		w.ledger.metaRead(name, string(v.Value), w.ledger.meta[name])
		w.ledger.metaSet(name, string(v.Value))
	}
}

// metaSettled compares the watch with the broker when nothing is under way: no change is missing.
func (w *world) metaSettled() {
	c := &queue.Meta{Namespace: metaSpace}
	w.send(c, func(err error) {
		if err != nil {
			return
		}
		w.metaSeen()
		for _, name := range []string{"m0", "m1"} {
			w.ledger.checks++
			if got, want := w.metas.values[name], c.State.Values[name]; got.Version != want.Version || string(got.Value) != string(want.Value) {
				w.ledger.violation("metadata", "the watch has %s %q with version %d, the broker %q with version %d", name, got.Value, got.Version, want.Value, want.Version)
			}
		}
	})
	w.run()
}
