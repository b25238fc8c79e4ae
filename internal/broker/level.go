package broker

import (
	"github.com/surgetank/surgetank/internal/door"
)

// told is the Level of a queue, for a subscription with SubscribeOptions.OnLevel. It waits for the
// entry of the settings, as every output.
type told struct {
	consumer uint64
	level    door.Level
}

// tellLevels adds the Level of their queues to the outputs of a turn, for those subscriptions for
// which it changed.
func (b *core) tellLevels(f *flight) {
	now := b.machine.LevelChanges()
	if now == b.levels {
		return
	}
	b.levels = now
	for id, s := range b.levelSubs { // unordered: each subscription has a function of its own
		if l, ok := b.machine.LevelOf(s.name); ok && (!s.toldOnce || l != s.level) {
			s.toldOnce, s.level = true, l
			f.told = append(f.told, told{id, l})
		}
	}
}

// tell calls the subscription's function.
func (b *core) tell(t told) {
	if s := b.subs[t.consumer]; s != nil {
		b.users.Do(onLevel, func() { s.opts.OnLevel(t.level) })
	}
}

const onLevel = "SubscribeOptions.OnLevel"
