//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/surgetank/surgetank/test/kit/namespace"
	"github.com/surgetank/surgetank/test/targets/judge"
)

// plan is the random content of a round, which depends only on the seed.
type plan struct {
	seed        uint64
	kind        string // postgres or sqlite
	mode        judge.Mode
	grouped     bool
	partitioned bool
	lanes       int
	batch       int
	wait        string
	poison      bool // the table always rejects some messages
	actions     []*action
	rng         *rand.Rand // random numbers for actions while they run
}

// side is the side that an action puts back in time.
type side uint8

const (
	neither   side = iota // an ordinary fault, after which a sink that refuses its target is a bug
	target                // the target is put back in time
	directory             // the data directory is put back in time
	both                  // a copy of the directory runs, too: two directories with a common past
)

// action is an event of a round.
type action struct {
	name string
	side side
	on   string // "postgres" or "sqlite"; empty: both kinds
	disk bool   // needs a small disk
	// with reports whether a plan can have the action. If with is nil, every plan can have it.
	with func(p *plan) bool
	run  func(w *world) error
}

// draw makes the plan of a seed. If with is not empty, the plan contains the action of that name.
func draw(seed uint64, with string) *plan {
	rng := rand.New(rand.NewPCG(seed, 7))
	p := &plan{seed: seed, kind: "postgres", mode: judge.Insert, rng: rand.New(rand.NewPCG(seed, 8))}
	if rng.IntN(3) == 0 {
		p.kind = "sqlite"
	}
	switch rng.IntN(5) {
	case 0:
		p.mode = judge.Nothing
	case 1:
		p.mode = judge.Update
	}
	p.grouped = rng.IntN(2) == 0
	p.partitioned = p.kind == "postgres" && p.mode == judge.Insert && rng.IntN(3) == 0
	p.lanes = 1 + rng.IntN(4)
	p.batch = []int{1, 5, 20, 100, 500}[rng.IntN(5)]
	p.wait = []string{"1ms", "5ms", "20ms"}[rng.IntN(3)]
	p.poison = rng.IntN(2) == 0
	var ordinary, back []*action
	for _, a := range actions {
		if a.on != "" && a.on != p.kind || a.with != nil && !a.with(p) || a.disk && !namespace.Inside() {
			continue
		}
		if a.side == neither {
			ordinary = append(ordinary, a)
		} else {
			back = append(back, a)
		}
	}
	pick := func(list []*action) *action { return list[rng.IntN(len(list))] }
	for range 1 + rng.IntN(4) {
		p.actions = append(p.actions, pick(ordinary))
	}
	if rng.IntN(5) < 3 {
		p.actions = append(p.actions, pick(back))
		if rng.IntN(5) == 0 {
			p.actions = append(p.actions, pick(back))
		}
	}
	rng.Shuffle(len(p.actions), func(i, j int) { p.actions[i], p.actions[j] = p.actions[j], p.actions[i] })
	p.sensible()
	if with != "" && !slices.ContainsFunc(p.actions, func(a *action) bool { return a.name == with }) {
		return nil
	}
	return p
}

// sensible removes actions that conflict. A table restored to a time before a migration cannot
// accept messages made for the migrated table. If a second directory runs during a restore, there
// is no single expected result. Deleting a sink also deletes the progress that its copies and
// earlier moments of the queue need.
func (p *plan) sensible() {
	seen, sides := map[string]bool{}, map[side]bool{}
	for _, a := range p.actions {
		sides[a.side] = true
	}
	p.actions = slices.DeleteFunc(p.actions, func(a *action) bool {
		again := seen[a.name] && a.side != neither
		seen[a.name] = true
		return again || sides[target] && strings.HasPrefix(a.name, "migrate") ||
			sides[both] && (a.side == target || a.side == directory) ||
			a.name == "second server" && (sides[target] || sides[both]) ||
			a.name == "sink set anew" && (sides[directory] || sides[both])
	})
	copies := 0
	p.actions = slices.DeleteFunc(p.actions, func(a *action) bool {
		if a.side == both {
			copies++
		}
		return a.side == both && copies > 1
	})
}

func (p *plan) disks() bool {
	return slices.ContainsFunc(p.actions, func(a *action) bool { return a.disk })
}

func (p *plan) names() []string {
	var list []string
	for _, a := range p.actions {
		list = append(list, a.name)
	}
	return list
}

func (p *plan) String() string {
	var also []string
	if p.grouped {
		also = append(also, "groups")
	}
	if p.partitioned {
		also = append(also, "partitions")
	}
	if p.poison {
		also = append(also, "poison")
	}
	return fmt.Sprintf("%s, %s, lanes %d, batch %d/%s %s: %s", p.kind, p.mode, p.lanes, p.batch, p.wait, strings.Join(also, " "), strings.Join(p.names(), ", "))
}
