package shards

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// Each shard stores which shard of which broker it is, so that mixed-up directories are noticed.
// The names are in door.ShardNamespace, with door.ShardIndex.
const (
	brokerName = "broker" // a random text, the same in all shards
	countName  = "shards" // the number of shards
)

// Identity is what a shard stores about itself. The zero value is a shard of a broker that never
// had several shards.
type Identity struct {
	Broker string
	Index  int // from 0
	Count  int
}

// ReadIdentity reads a shard's identity.
func ReadIdentity(ctx context.Context, b door.Metadata) (id Identity, err error) {
	state, err := b.Meta(ctx, door.ShardNamespace)
	values := state.Bytes()
	if err != nil || len(values) == 0 {
		return id, err
	}
	id.Broker = string(values[brokerName])
	var err1, err2 error
	id.Index, err1 = strconv.Atoi(string(values[door.ShardIndex]))
	id.Count, err2 = strconv.Atoi(string(values[countName]))
	if id.Broker == "" || err1 != nil || err2 != nil {
		// A crash during the first opening can leave a part.
		return Identity{Broker: id.Broker, Index: max(0, id.Index)}, nil
	}
	return id, nil
}

// dirName is the name of a shard's directory in the first shard.
func dirName(i int) string { return "dir." + strconv.Itoa(i) }

// madeName is the name of the mark in the first shard that a shard has stored its identity.
func madeName(i int) string { return "made." + strconv.Itoa(i) }

// Made returns which shards of a broker were ever open, as its first shard knows. A directory of
// such a shard without data is not the shard's: probably its disk is not mounted.
func Made(ctx context.Context, first door.Metadata, count int) ([]bool, error) {
	state, err := first.Meta(ctx, door.ShardNamespace)
	made := make([]bool, count)
	for i := range made {
		_, made[i] = state.Values[madeName(i)]
	}
	return made, err
}

// Dirs returns the directories of a broker's shards, as its first shard knows them.
func Dirs(ctx context.Context, first door.Metadata, count int) ([]string, error) {
	state, err := first.Meta(ctx, door.ShardNamespace)
	values := state.Bytes()
	dirs := make([]string, count)
	for i := range dirs {
		dirs[i] = string(values[dirName(i)])
	}
	return dirs, err
}

// Empty reports whether a queue has no messages.
func Empty(i *surgetank.QueueInfo) bool {
	return i.Ready+i.Blocked+i.Delayed+i.Leased+i.Damaged == 0
}

// Shrink makes the first shard forget the shards from n on, which have no queues. With n = 1 the
// shard is a broker of its own again: it must have no messages on their way to other shards.
func Shrink(ctx context.Context, first door.Shard, n int) error {
	if n == 1 {
		infos, err := first.Queues(ctx)
		if err != nil {
			return err
		}
		for i := range infos {
			if to, _, ok := door.OutboxOf(infos[i].Name); ok && !Empty(&infos[i]) {
				return surgetank.Errorf(surgetank.CodeInvalid, "messages are on their way from shard 1 to the queue %q, which was in another shard; open the broker with all its shards, and wait until they have arrived", to)
			}
		}
		for i := range infos {
			if door.Hidden(infos[i].Name) {
				if _, err := first.DeleteQueue(ctx, infos[i].Name, surgetank.DeleteOptions{IfEmpty: true}); err != nil {
					return err
				}
			}
		}
	}
	id, err := ReadIdentity(ctx, first)
	if err != nil {
		return err
	}
	for i := n; i < id.Count; i++ {
		if err := first.SetMeta(ctx, door.ShardNamespace, madeName(i), nil); err != nil {
			return err
		}
	}
	return first.SetMeta(ctx, door.ShardNamespace, countName, []byte(strconv.Itoa(n)))
}

// identify checks that the open shards belong together, in this order, and stores the identity of
// new ones.
func (b *Broker) identify(ctx context.Context) (err error) {
	ids := make([]Identity, len(b.parts))
	for i := range b.parts {
		p := &b.parts[i]
		if p.Away {
			continue
		}
		ids[i], err = ReadIdentity(ctx, p.now())
		if err := p.lost(i, err); err != nil {
			return fmt.Errorf("reading the identity of shard %d: %w", i+1, err)
		}
		if b.id == "" {
			b.id = ids[i].Broker
		}
	}
	if ids[0].Broker == "" && b.id != "" {
		return surgetank.Errorf(surgetank.CodeInvalid, "%s is listed as shard 1 and is no shard of the broker that the other directories belong to; list the directories of one broker", b.parts[0].name(0))
	}
	if b.made, err = Made(ctx, b.parts[0].now(), len(b.parts)); err != nil {
		return err
	}
	for i := range b.parts {
		p := &b.parts[i]
		if p.Away {
			if !b.made[i] {
				b.dir.empty(i)
			}
			continue
		}
		if err := p.lost(i, b.check(ctx, i, ids[i], p.now())); err != nil {
			return err
		}
	}
	if b.id == "" {
		var random [12]byte
		if _, err := io.ReadFull(b.opts.Rand, random[:]); err != nil {
			return fmt.Errorf("naming the broker: %w", err)
		}
		b.id = hex.EncodeToString(random[:])
	}
	for i := range b.parts {
		p := &b.parts[i]
		if p.Away {
			continue
		}
		if err := p.lost(i, b.enter(ctx, i, ids[i], p.now(), b.parts[0].now())); err != nil {
			return err
		}
	}
	return nil
}

// identifyOne is identify for a later opening of a shard, not of the first one.
func (b *Broker) identifyOne(ctx context.Context, i int, now door.Shard) error {
	id, err := ReadIdentity(ctx, now)
	if err != nil {
		return err
	}
	if err := b.check(ctx, i, id, now); err != nil {
		return err
	}
	return b.enter(ctx, i, id, now, b.parts[0])
}

// check checks the identity of a shard.
func (b *Broker) check(ctx context.Context, i int, id Identity, now door.Shard) error {
	p := &b.parts[i]
	switch {
	case id.Broker == "" && i > 0:
		if b.made[i] {
			return NotMounted(i, p.name(i))
		}
		infos, err := now.Queues(ctx)
		if err != nil {
			return err
		}
		if len(infos) > 0 {
			return surgetank.Errorf(surgetank.CodeInvalid, "%s is listed as shard %d, but it has queues and is the data directory of a broker of its own; use an empty directory", p.name(i), i+1)
		}
	case id.Broker == "":
	case id.Broker != b.id:
		return surgetank.Errorf(surgetank.CodeInvalid, "%s is listed as shard %d and belongs to another broker than shard 1; list the directories of one broker", p.name(i), i+1)
	case id.Index != i:
		return surgetank.Errorf(surgetank.CodeInvalid, "%s is listed as shard %d and is shard %d; list the directories in their order", p.name(i), i+1, id.Index+1)
	case i == 0 && id.Count > len(b.parts): // other shards can still have the number before a removal
		return surgetank.Errorf(surgetank.CodeInvalid, "this broker has %d shards and %d are listed; list all of them, or remove the last ones as docs/shards.md describes", id.Count, len(b.parts))
	}
	return nil
}

// NotMounted is the error for a directory without a shard's data. The shard was open before.
func NotMounted(i int, name string) error {
	return surgetank.Errorf(surgetank.CodeUnavailable, "%s has no data of shard %d, which was open before; mount its file system or put the directory back, or restore all shards from one backup", name, i+1)
}

// enter stores the identity of a shard, if it changed, and notes in the first shard that the shard
// was made. The note comes before the shard's first queue.
func (b *Broker) enter(ctx context.Context, i int, id Identity, now, first door.Shard) error {
	if want := (Identity{b.id, i, len(b.parts)}); id != want {
		if err := want.store(ctx, now); err != nil {
			return fmt.Errorf("storing the identity of shard %d: %w", i+1, err)
		}
	}
	if b.noted == nil {
		known, err := Dirs(ctx, first, len(b.parts))
		if err != nil {
			return err
		}
		b.noted = known
	}
	if dir := b.parts[i].Dir; dir != b.noted[i] {
		if err := first.SetMeta(ctx, door.ShardNamespace, dirName(i), []byte(dir)); err != nil {
			return err
		}
		b.noted[i] = dir
	}
	if i > 0 && !b.made[i] {
		if err := first.SetMeta(ctx, door.ShardNamespace, madeName(i), []byte{1}); err != nil {
			return err
		}
		b.made[i] = true
	}
	return nil
}

// store stores an identity. The broker's name is first: a shard with a name and without a number is
// completed at the next opening.
func (id Identity) store(ctx context.Context, b door.Metadata) error {
	for _, v := range [...]struct{ name, value string }{{door.ShardIndex, strconv.Itoa(id.Index)}, {brokerName, id.Broker}, {countName, strconv.Itoa(id.Count)}} {
		if err := b.SetMeta(ctx, door.ShardNamespace, v.name, []byte(v.value)); err != nil {
			return err
		}
	}
	return nil
}

// reserve makes each shard number its new queues above its old numbers, which queues in other
// shards can have. A shard that was removed and added again does not know them. shard is the shard
// that is opened, or anyShard. open returns a shard, or nil if the shard is not open.
func (b *Broker) reserve(ctx context.Context, shard int, open func(shard int) door.Shard) error {
	for i, top := range b.dir.highest() {
		now := open(i)
		if top == 0 || now == nil {
			continue
		}
		state, err := now.Meta(ctx, door.ShardNamespace)
		if err != nil {
			if err := b.skip(i, shard, err); err != nil {
				return err
			}
			continue
		}
		if n, _ := strconv.ParseUint(string(state.Values[door.ShardNext].Value), 10, 64); n <= top {
			if err := now.SetMeta(ctx, door.ShardNamespace, door.ShardNext, strconv.AppendUint(nil, top+1, 10)); err != nil {
				if err := b.skip(i, shard, err); err != nil {
					return err
				}
				continue
			}
		}
	}
	return nil
}

func (p *Part) name(i int) string {
	if p.Dir != "" {
		return "the directory " + p.Dir
	}
	return fmt.Sprintf("the log of shard %d", i+1)
}

// Alone checks that a shard can be used as the only shard of a broker: it never had other shards,
// or it is the first shard of a broker with more.
func Alone(id Identity, dir string) error {
	switch {
	case id.Broker == "" || id.Count < 2 && id.Index == 0:
		return nil
	case id.Index > 0:
		return surgetank.Errorf(surgetank.CodeInvalid, "the directory %s is shard %d of a broker; open the directory of the broker's first shard, with all its shards", dir, id.Index+1)
	}
	return surgetank.Errorf(surgetank.CodeInvalid, "the broker in %s has %d shards and 1 is configured; set shards to %d, or remove the other shards as docs/shards.md describes", dir, id.Count, id.Count)
}
