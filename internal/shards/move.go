package shards

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
)

// A move copies a queue into a hidden queue of the new shard while the queue works as usual. At the
// end, publishers and consumers wait for a moment:
//
//	        old shard                 router                    new shard
//	        ─────────                 ──────                    ─────────
//	1                                 stage                     hidden, empty queue
//	2       works                     copy, again and again     copies
//	3       hands out nothing         wait for leases
//	4       hands out nothing         close the gate
//	5       frozen (stored)
//	6                                 copy the differences      equal
//	7                                 arrive (stored)           works: this step decides
//	8                                 consumers follow
//	9       removed                   open the gate
//
// The old shard has the queue until step 7 is durable, and the new shard from then on. A queue that
// is frozen at an opening is looked up in the new shard, and the move is finished or undone.
//
// Messages keep their numbers, and the queue keeps its number. So message ids, dedup ids,
// publishers' numbers, and positions that sinks have stored stay valid.

// Limits of a move.
const (
	moveRead   = 256     // messages that are read together
	moveBatch  = 4 << 20 // bytes of bodies that are stored together
	moveRest   = 1000    // with fewer differences, a pass is the last before the switch
	movePasses = 6       // passes before the switch at most
	holdPoll   = 20 * time.Millisecond
	undoTries  = 3
)

// moves is the moves that are under way.
type moves struct {
	mu   sync.Mutex
	byOf map[string]*move // by queue
	// stuck has the queues that could not be removed from their old shard, which is not open.
	stuck map[string]bool
}

// move is one move.
type move struct {
	b        *Broker
	name     string
	from, to int
	opts     surgetank.MoveOptions
	src, dst door.Shard
	ids      map[string]uint64 // numbers of the queues that are staged
	names    []string          // in their order
	result   surgetank.MoveResult
	frozen   bool

	mu   sync.Mutex
	info surgetank.MoveInfo
}

// MoveQueue moves a queue to another shard. See surgetank.Administrator.
func (b *Broker) MoveQueue(ctx context.Context, name string, opts surgetank.MoveOptions) (surgetank.MoveResult, error) {
	if b == nil || ctx == nil {
		return surgetank.MoveResult{}, noBroker(b)
	}
	m, err := b.startMove(ctx, name, opts)
	if err != nil {
		return surgetank.MoveResult{}, err
	}
	defer b.endMove(m)
	if err := m.run(ctx); err != nil {
		return surgetank.MoveResult{}, err
	}
	return m.result, nil
}

// startMove checks the call and enters the move.
func (b *Broker) startMove(ctx context.Context, name string, opts surgetank.MoveOptions) (*move, error) {
	if err := fullname.Validate(name); err != nil {
		return nil, err
	}
	if opts.Shard < 1 || opts.Shard > len(b.parts) {
		return nil, surgetank.FieldErrorf("shard", "there is no shard %d; this broker has the shards 1 to %d", opts.Shard, len(b.parts))
	}
	src, err := b.shard(ctx, name)
	if err != nil {
		return nil, err
	}
	from, _ := b.dir.locate(name)
	if _, err := src.Queue(ctx, name); err != nil {
		return nil, err
	}
	if of := door.OwnDeadLetters(name); of != "" {
		if _, err := src.Queue(ctx, of); err == nil {
			return nil, surgetank.Errorf(surgetank.CodeInvalid, "%q is the own dead-letter queue of %q, and both are in the same shard; move %q", shown(name), shown(of), shown(of))
		}
	}
	if from == opts.Shard-1 {
		return nil, surgetank.FieldErrorf("shard", "the queue %q is in shard %d already", shown(name), opts.Shard)
	}
	dst, err := b.part(opts.Shard - 1)
	if err != nil {
		return nil, err
	}
	if opts.LeaseWait == 0 {
		opts.LeaseWait = surgetank.DefaultMoveWait
	}
	m := &move{b: b, name: name, from: from, to: opts.Shard - 1, opts: opts, src: src, dst: dst, ids: map[string]uint64{},
		info: surgetank.MoveInfo{Shard: opts.Shard, State: surgetank.MoveCopying, Since: b.clock.Now()}}
	m.result.From, m.result.Shard = from+1, opts.Shard
	b.moves.mu.Lock()
	defer b.moves.mu.Unlock()
	if b.moves.stuck[name] {
		return nil, stuckError(name)
	}
	if other := b.moves.byOf[name]; other != nil {
		return nil, surgetank.Errorf(surgetank.CodeExists, "the queue %q is already moving to shard %d; wait until it is there", shown(name), other.to+1)
	}
	b.moves.byOf[name] = m
	return m, nil
}

func (b *Broker) endMove(m *move) {
	b.moves.mu.Lock()
	delete(b.moves.byOf, m.name)
	b.moves.mu.Unlock()
}

// moving returns the state of the move of a queue, or nil.
func (b *Broker) moving(name string) *surgetank.MoveInfo {
	b.moves.mu.Lock()
	m := b.moves.byOf[name]
	b.moves.mu.Unlock()
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	info := m.info
	return &info
}

// run makes the move. After an error before step 7, everything is as before.
func (m *move) run(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			m.undo()
		}
	}()
	family, err := m.family(ctx)
	if err != nil {
		return err
	}
	for i := range family {
		if err := m.stage(ctx, &family[i]); err != nil {
			return err
		}
	}
	for range movePasses {
		differ := 0
		for _, name := range m.names {
			n, err := m.pass(ctx, name)
			if err != nil {
				return err
			}
			differ += n
		}
		if differ < moveRest {
			break
		}
	}
	if err := m.drain(ctx); err != nil {
		return err
	}
	return m.commit(ctx)
}

// family reads the queue and its own dead-letter queues.
func (m *move) family(ctx context.Context) (all []surgetank.QueueInfo, err error) {
	for name := m.name; ; name += surgetank.DeadLetterSuffix {
		info, err := m.src.Queue(ctx, name)
		if len(all) > 0 && surgetank.CodeOf(err) == surgetank.CodeNotFound {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if info.Config.Transient {
			return nil, surgetank.Errorf(surgetank.CodeInvalid, "queue %q is transient: it ends with the broker, and does not move to another shard", shown(name))
		}
		if info.Config.Coalesce.By != "" {
			return nil, surgetank.Errorf(surgetank.CodeInvalid, "queue %q coalesces messages, and such a queue cannot move to another shard yet", shown(name))
		}
		if info.Damaged > 0 {
			return nil, surgetank.Errorf(surgetank.CodeInvalid, "queue %q has damaged messages, so it does not move; drop them first (surgetank queue purge --damaged)", shown(name))
		}
		all = append(all, info)
	}
}

func (m *move) stage(ctx context.Context, info *surgetank.QueueInfo) error {
	if err := m.dst.MoveStep(ctx, &door.MoveStep{Op: door.MoveStage, Queue: info.Name, ID: info.ID, Config: info.Config}); err != nil {
		return err
	}
	m.ids[info.Name] = info.ID
	m.names = append(m.names, info.Name)
	m.report(func(i *surgetank.MoveInfo) { i.Left += info.Ready + info.Blocked + info.Delayed + info.Leased })
	return m.tell()
}

// report changes the state that users see.
func (m *move) report(change func(*surgetank.MoveInfo)) {
	m.mu.Lock()
	change(&m.info)
	m.mu.Unlock()
}

// tell calls the caller's function Progress.
func (m *move) tell() error {
	if m.opts.Progress == nil {
		return nil
	}
	m.mu.Lock()
	info := m.info
	m.mu.Unlock()
	if f := m.b.calls.Do("MoveOptions.Progress", func() { m.opts.Progress(info) }); f != nil {
		return surgetank.Errorf(surgetank.CodeInvalid, "the move ended because its function Progress failed: %w", f)
	}
	return nil
}

// pass makes the copy equal to the queue, and returns how many messages differed. While the queue
// works, the copy is soon a little behind.
func (m *move) pass(ctx context.Context, name string) (differ int, err error) {
	for from := uint64(0); ; {
		out := door.MoveStep{Op: door.MoveOutline, Queue: name, ID: m.ids[name], From: from}
		if err := m.src.MoveStep(ctx, &out); err != nil {
			return differ, err
		}
		same := door.MoveStep{Op: door.MoveCompare, Queue: name, From: from, Last: out.Last, Outline: out.Outline}
		if err := m.dst.MoveStep(ctx, &same); err != nil {
			return differ, err
		}
		differ += len(same.Seqs)
		for part := range slices.Chunk(same.Seqs, moveRead) {
			if err := m.copy(ctx, name, part); err != nil {
				return differ, err
			}
		}
		if from = out.Next; from == 0 {
			return differ, nil
		}
	}
}

// copy copies some messages.
func (m *move) copy(ctx context.Context, name string, seqs []uint64) error {
	read := door.MoveStep{Op: door.MoveRead, Queue: name, ID: m.ids[name], Seqs: seqs}
	if err := m.src.MoveStep(ctx, &read); err != nil {
		return err
	}
	for list := read.Copies; len(list) > 0; {
		n, bytes := 0, 0
		for n < len(list) && (n == 0 || bytes+len(list[n].Message.Body) <= moveBatch) {
			bytes += len(list[n].Message.Body)
			n++
		}
		if err := m.dst.MoveStep(ctx, &door.MoveStep{Op: door.MoveCopy, Queue: name, Copies: list[:n]}); err != nil {
			return err
		}
		list = list[n:]
		m.result.Messages += int64(n)
		m.report(func(i *surgetank.MoveInfo) { i.Copied, i.Left = i.Copied+int64(n), max(0, i.Left-int64(n)) })
	}
	return m.tell()
}

// drain waits for leased messages, while the queue hands out nothing.
func (m *move) drain(ctx context.Context) error {
	m.report(func(i *surgetank.MoveInfo) { i.State = surgetank.MoveWaiting })
	end := m.b.clock.Passed() + m.opts.LeaseWait
	for {
		hold := door.MoveStep{Op: door.MoveHold, Queue: m.name, ID: m.ids[m.name]}
		if err := m.src.MoveStep(ctx, &hold); err != nil {
			return err
		}
		m.result.Returned = hold.Leased
		if err := m.tell(); err != nil {
			return err
		}
		if hold.Leased == 0 || m.b.clock.Passed() >= end {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return surgetank.Errorf(surgetank.CodeUnavailable, "the move was given up, and the queue stays in its shard: %w", err)
		}
		if !m.b.paused(holdPoll) {
			return surgetank.Errorf(surgetank.CodeClosed, "the broker was closed before the queue had moved")
		}
	}
}

// commit is the end of the move, during which the queue is not available.
func (m *move) commit(ctx context.Context) error {
	b := m.b
	m.report(func(i *surgetank.MoveInfo) { i.State = surgetank.MoveSwitching })
	defer b.lock(m.name)()
	gated := []string{m.name}
	for range 3 {
		gated = append(gated, gated[len(gated)-1]+surgetank.DeadLetterSuffix)
	}
	open, err := b.gates.close(gated)
	if err != nil {
		return err
	}
	defer open()
	freeze := door.MoveStep{Op: door.MoveFreeze, Queue: m.name, ID: m.ids[m.name], To: m.to}
	m.frozen = true // also if the answer is missing
	if err := m.src.MoveStep(ctx, &freeze); err != nil {
		return err
	}
	arrive := door.MoveStep{Op: door.MoveArrive, Queue: m.name}
	for _, name := range freeze.Names {
		config, err := m.finish(ctx, name)
		if err != nil {
			return err
		}
		arrive.Names, arrive.Configs = append(arrive.Names, name), append(arrive.Configs, config)
	}
	if err := ctx.Err(); err != nil {
		return surgetank.Errorf(surgetank.CodeUnavailable, "the move was given up, and the queue stays in its shard: %w", err)
	}
	arrived, err := m.decide(m.dst.MoveStep(context.WithoutCancel(ctx), &arrive))
	if err != nil {
		if arrived { // not known: nothing may be undone
			m.frozen, m.names = false, nil
		}
		return err
	}
	m.result.Queues = freeze.Names
	for i, name := range arrive.Names {
		b.dir.relocate(name, m.ids[name], m.to)
		b.dir.refer(m.to, name, arrive.Configs[i].DeadLetter)
	}
	for _, name := range arrive.Names {
		for _, sub := range b.subs.of(name) {
			sub.follow(m.to)
		}
	}
	m.depart()
	m.report(func(i *surgetank.MoveInfo) { i.Left = 0 })
	return nil
}

// finish copies the last differences of a frozen queue, and its other state. It returns its
// settings.
func (m *move) finish(ctx context.Context, name string) (config surgetank.QueueConfig, err error) {
	b := m.b
	info, err := m.src.Queue(ctx, name)
	if err != nil {
		return config, err
	}
	if m.ids[name] != info.ID { // the dead-letter queue is new
		if err := m.stage(ctx, &info); err != nil {
			return config, err
		}
	}
	if _, err := m.pass(ctx, name); err != nil {
		return config, err
	}
	pack := door.MoveStep{Op: door.MovePack, Queue: name, ID: info.ID, Outboxes: b.mover.idsFor(name)}
	if err := m.src.MoveStep(ctx, &pack); err != nil {
		return config, err
	}
	if err := m.dst.MoveStep(ctx, &door.MoveStep{Op: door.MoveUnpack, Queue: name, Frames: pack.Frames}); err != nil {
		return config, err
	}
	// Dead letters need their way before the first one is written.
	if to := b.dir.refer(m.to, name, pack.Config.DeadLetter); to != "" {
		if err := b.mover.ensure(ctx, m.to, to, false); err != nil {
			return config, err
		}
	}
	for _, other := range b.dir.referrers(name, m.to) {
		if err := b.mover.ensure(ctx, other, name, false); err != nil {
			return config, err
		}
	}
	if pack.Config.Shard != 0 {
		pack.Config.Shard = m.to + 1
	}
	return pack.Config, nil
}

// decide finds out whether the queue has arrived. If that cannot be known before the broker closes,
// it returns true and an error.
func (m *move) decide(err error) (arrived bool, _ error) {
	for wait := moveFirst; err != nil; wait = min(2*wait, moveLast) {
		info, e := m.dst.Queue(m.b.ctx, m.name)
		switch {
		case e == nil && info.ID == m.ids[m.name]:
			return true, nil
		case e == nil:
			return false, err
		case surgetank.CodeOf(e) == surgetank.CodeNotFound:
			return false, err
		}
		if !m.b.paused(wait) {
			return true, surgetank.Errorf(surgetank.CodeUncertain, "the broker was closed before it was known whether the queue %q has moved; the next opening decides it: %w", shown(m.name), err)
		}
	}
	return true, nil
}

// depart removes the queue from its old shard. The gate is closed meanwhile: a queue that is
// deleted in the new shard must not appear again in the old one after a crash.
func (m *move) depart() {
	for wait := moveFirst; ; wait = min(2*wait, moveLast) {
		err := m.src.MoveStep(m.b.ctx, &door.MoveStep{Op: door.MoveDepart, Queue: m.name, ID: m.ids[m.name]})
		if err == nil || surgetank.CodeOf(err) == surgetank.CodeNotFound {
			return
		}
		m.b.log.Warn("removing a queue from its old shard failed and is repeated", "shard", m.from+1, "queue", shown(m.name), "error", err)
		if _, failed := m.b.part(m.from); failed != nil || m.b.down(m.from) {
			m.b.moves.mu.Lock()
			defer m.b.moves.mu.Unlock()
			if m.b.moves.stuck == nil {
				m.b.moves.stuck = map[string]bool{}
			}
			for _, name := range m.names {
				m.b.moves.stuck[name] = true
			}
			return // the next opening of that shard does it
		}
		if !m.b.paused(wait) {
			return // the next opening does it
		}
	}
}

// deletable returns an error if a queue must not be deleted, because its failed old shard still has
// it and would show it again.
func (b *Broker) deletable(name string) error {
	b.moves.mu.Lock()
	defer b.moves.mu.Unlock()
	if b.moves.stuck[name] {
		return stuckError(name)
	}
	return nil
}

func stuckError(name string) error {
	return surgetank.Errorf(surgetank.CodeUnavailable, "the queue %q has moved, and its old shard failed before it had removed the queue; open the old shard first", shown(name))
}

// undo makes everything as before. A step that fails is repeated in the background; until then the
// queue is unavailable if it is frozen. The next opening does the same.
func (m *move) undo() {
	left := m.undoOnce()
	if left == nil {
		return
	}
	m.b.log.Warn("undoing the move of a queue failed and is repeated", "queue", shown(m.name), "error", left)
	if m.b.ctx.Err() != nil {
		return
	}
	wait := moveFirst
	m.b.tasks.start(func() (time.Duration, bool) {
		wait = min(2*wait, moveLast)
		return wait, m.b.ctx.Err() == nil && m.undoOnce() != nil
	})
}

func (m *move) undoOnce() (err error) {
	ctx := m.b.ctx
	if m.frozen {
		err = m.src.MoveStep(ctx, &door.MoveStep{Op: door.MoveThaw, Queue: m.name, ID: m.ids[m.name]})
	} else if len(m.names) > 0 {
		err = m.src.MoveStep(ctx, &door.MoveStep{Op: door.MoveHold, Queue: m.name, ID: m.ids[m.name], Off: true})
	}
	if surgetank.CodeOf(err) == surgetank.CodeNotFound {
		err = nil // it was deleted
	}
	for _, name := range m.names {
		err = errors.Join(err, m.dst.MoveStep(ctx, &door.MoveStep{Op: door.MoveUnstage, Queue: name}))
	}
	return err
}

// has reports whether a queue moves, or the queue whose dead letters it has.
func (m *moves) has(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.byOf) > 0 && name != "" {
		if m.byOf[name] != nil {
			return true
		}
		name = door.OwnDeadLetters(name)
	}
	return false
}

// anyShard stands for all shards.
const anyShard = -1

// resolve finishes or undoes the moves to or from a shard that were cut by a crash or a failure. It
// is called before the queues of the shard are read. open returns a shard, or nil if the shard is
// not open. A frozen queue stays frozen until its new shard is open.
func (b *Broker) resolve(ctx context.Context, shard int, open func(shard int) door.Shard) error {
	var late []func() // called last, because a queue that moves is left out above
	for i := range b.parts {
		from := open(i)
		if from == nil {
			continue
		}
		marks, err := from.Meta(ctx, door.MoveNamespace)
		if err != nil {
			if err := b.skip(i, shard, err); err != nil {
				return err
			}
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(marks.Values)) {
			to, err := strconv.Atoi(string(marks.Values[name].Value))
			if err != nil {
				return surgetank.Errorf(surgetank.CodeCorrupt, "the mark of the moving queue %q has the value %.20q and not a shard", shown(name), marks.Values[name].Value)
			}
			if shard != anyShard && i != shard && to != shard || b.moves.has(name) {
				continue
			}
			arrived, err := b.resolveOne(ctx, name, i, to, shard, open)
			if err != nil {
				return fmt.Errorf("finishing the move of the queue %q: %w", shown(name), err)
			}
			if arrived != nil {
				late = append(late, func() { b.arrived(arrived, i, to) })
			}
		}
	}
	for i := range b.parts {
		at := open(i)
		if at == nil || shard != anyShard && i != shard {
			continue
		}
		infos, err := at.Queues(ctx)
		if err != nil {
			if err := b.skip(i, shard, err); err != nil {
				return err
			}
			continue
		}
		for j := range infos {
			of, ok := door.ArrivingOf(infos[j].Name)
			if !ok || b.moves.has(of) {
				continue
			}
			if err := at.MoveStep(ctx, &door.MoveStep{Op: door.MoveUnstage, Queue: of}); err != nil {
				return b.skip(i, shard, err)
			}
			b.log.Warn("the move of a queue did not end before the broker ended; the queue is still in its old shard", "queue", shown(of))
		}
	}
	for _, f := range late {
		f()
	}
	return nil
}

// skip judges the error of a call to shard i while shard is opened. Another shard that has failed
// meanwhile is skipped, because its next opening does the same.
func (b *Broker) skip(i, shard int, err error) error {
	if shard == anyShard {
		return b.parts[i].lost(i, err)
	}
	if code := surgetank.CodeOf(err); i == shard || code == surgetank.CodeCorrupt || code == surgetank.CodeInvalid {
		return err
	}
	b.log.Warn("moves of queues from or to a shard are looked at again when it opens next", "shard", i+1, "error", err)
	return nil
}

// resolveOne finishes or undoes the move of one frozen queue. shard is the shard that is opened, or
// anyShard. If the queue has arrived in that shard, resolveOne returns it there and changes
// nothing.
func (b *Broker) resolveOne(ctx context.Context, name string, i, to, shard int, open func(int) door.Shard) (arrived *surgetank.QueueInfo, err error) {
	from := open(i)
	own, err := from.Queue(ctx, name)
	if surgetank.CodeOf(err) == surgetank.CodeNotFound {
		return nil, nil // it left together with the queue whose dead letters it has
	}
	if err != nil {
		return nil, b.skip(i, shard, err)
	}
	step := door.MoveStep{Op: door.MoveThaw, Queue: name}
	if to >= 0 && to < len(b.parts) {
		dst := open(to)
		if dst == nil {
			return nil, nil // only that shard knows
		}
		switch there, err := dst.Queue(ctx, name); {
		case err == nil && there.ID == own.ID && to == shard:
			return &there, nil
		case err == nil && there.ID == own.ID:
			step.Op = door.MoveDepart
		case err != nil && surgetank.CodeOf(err) != surgetank.CodeNotFound:
			return nil, b.skip(to, shard, err)
		}
	}
	if err := from.MoveStep(ctx, &step); err != nil {
		return nil, b.skip(i, shard, err)
	}
	b.unstick(name)
	return nil, nil
}

// arrived finishes the move of a queue whose new shard opens later than its old one. The old shard
// can have subscriptions of the queue. They follow when the new shard serves.
func (b *Broker) arrived(info *surgetank.QueueInfo, from, to int) {
	m := &move{b: b, name: info.Name, from: from, to: to, src: b.parts[from].Shard, dst: b.parts[to].Shard, names: []string{info.Name}, ids: map[string]uint64{info.Name: info.ID},
		info: surgetank.MoveInfo{Shard: to + 1, State: surgetank.MoveSwitching, Since: b.clock.Now()}}
	b.moves.add(m)
	b.dir.relocate(info.Name, info.ID, to)
	b.dir.refer(to, info.Name, info.Config.DeadLetter)
	b.tasks.start(func() (time.Duration, bool) {
		for _, sub := range b.subs.of(m.name) {
			sub.follow(to)
		}
		m.depart()
		b.endMove(m)
		return 0, false
	})
}

func (m *moves) add(x *move) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byOf[x.name] = x
}

// unstick notes that the old shard of a queue has removed the queue.
func (b *Broker) unstick(name string) {
	b.moves.mu.Lock()
	defer b.moves.mu.Unlock()
	delete(b.moves.stuck, name)
}
