package timelines

import (
	"context"
	"fmt"
	"time"

	"github.com/surgetank/surgetank/test/targets/judge"
)

// goOn acts like a user whose sinks have stopped. If two copies of a directory run, it stops one of
// them. The remaining sink compares again, so that its numbers are current. goOn chooses one of the
// offered ways. Then everything must be written; only messages that the way announced may be
// missing or doubled.
func (w *world) goOn(done *counts) []judge.Finding {
	if len(w.dirs) > 1 {
		keep := w.rng.IntN(2)
		w.say("%s goes on alone", w.dirs[keep].name)
		w.shut(w.dirs[1-keep])
		w.dirs = []*directory{w.dirs[keep]}
	}
	d := w.dirs[0]
	if stopped(w.state(d).State) {
		w.ask(d.m.Resume(context.Background(), "s", ""))
	}
	w.drain()
	s := w.state(d)
	before := w.collect()
	if s.Refusal != nil {
		before.Servers[0].Numbers = &judge.Numbers{Missing: int(s.Refusal.Missing), Known: int(s.Refusal.Known), Waiting: int(s.Refusal.Waiting)}
	}
	r := judge.Check(before)
	if len(r.Findings) > 0 || !r.Refused {
		return w.named("after it compared again", r.Findings)
	}
	if s.Refusal == nil {
		return w.named(string(s.State), []judge.Finding{{Kind: judge.Words, Text: "a sink that stays " + string(s.State) + " offers no way on: " + s.Error}})
	}
	way := s.Refusal.Ways[w.rng.IntN(len(s.Refusal.Ways))]
	w.say("%s", s.Refusal.Text)
	w.say("%s: %s", way.Command, way.Effect)
	done.count(done.ways, fmt.Sprintf("%s %s", s.Refusal.Kind, way.Way))
	if err := d.m.Resume(context.Background(), "s", string(way.Way)); err != nil {
		return []judge.Finding{{Kind: judge.Words, Text: fmt.Sprintf("%s: %v", way.Command, err)}}
	}
	w.drain()
	w.pass(time.Second)
	return judge.After(before, w.collect(), judge.Way{Name: string(way.Way), Doubled: int(way.Doubled), Skipped: int(way.Skipped), Lost: int(way.Lost)})
}

func (w *world) named(when string, list []judge.Finding) []judge.Finding {
	for i := range list {
		list[i].Text = when + ": " + list[i].Text
	}
	return list
}
