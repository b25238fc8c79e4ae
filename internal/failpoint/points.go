package failpoint

// Point names one point in the code, before or after a step at which a crash matters.
type Point string

type side bool

const (
	before side = false
	after  side = true
)

// points are ordered as a server reaches them: opening, writing, preparing space, trimming,
// snapshots, the stop, sinks. Each point is before or after a text of a source file. The text must
// occur exactly once in its file, which a test checks. Line breaks at the start and end of a text
// are ignored.
var points = []struct {
	point Point
	file  string
	side  side
	text  string
}{
	{"open: a new log's state file is synced", "internal/disklog/state.go", before, `return fs.Rename(name+tmpExt, name)`},
	{"open: a new log's state file has its name", "internal/disklog/state.go", before, `if err := l.fs.SyncDir(l.o.Dir); err != nil {`},
	{"open: a new log is made", "internal/disklog/state.go", after, `
	if err := l.fs.SyncDir(l.o.Dir); err != nil {
		return openError(l.o.Dir, err)
	}
`},
	{"open: the tail is about to be copied", "internal/disklog/tail.go", before, `least := pageEnd(dataStart + found.end - found.synced + indexSize(len(doubtful)+1) + pageSize)`},
	{"open: the tail is copied", "internal/disklog/tail.go", before, `l.o.OnEvent(Event{Kind: "rescued", Segment: number, Detail: fmt.Sprintf("%d entries", len(doubtful))})`},
	{"open: the old tail's index is written", "internal/disklog/tail.go", after, `_, err = f.WriteAt(b, s.end)`},
	{"open: the old tail's index is synced", "internal/disklog/tail.go", before, `
	if err == nil {
		err = f.Truncate(size)
`},
	{"open: the old tail is cut", "internal/disklog/tail.go", after, `
	if err == nil {
		err = f.Truncate(size)
	}
`},
	{"open: the cut is synced", "internal/disklog/tail.go", before, `return size, err`},
	{"open: the snapshot is read", "internal/broker/recover.go", before, `replay, log, err := b.opts.OpenLog(from, LogHooks{Full: b.onFull, Damage: b.onDamage})`},
	{"open: the log is replayed", "internal/broker/recover.go", before, `b.startTime(start, passed)`},
	{"open: the new epoch is durable", "internal/broker/recover.go", before, `b.opened <- err }`},
	{"turn: decided, not yet with the log", "internal/broker/turn.go", before, `b.number = number`},
	{"turn: with the log", "internal/broker/held.go", after, `b.log.Append(e.data, func(at commitlog.Offset, err error) { b.answered(ticket{e.number, at, err}) })`},
	{"turn: durable, nothing released", "internal/broker/turn.go", before, `
	n := 0
	for n < len(b.flights) && 
`},
	{"turn: released", "internal/broker/turn.go", after, `b.flights = b.flights[:rest]`},
	{"log: a batch is about to be written", "internal/disklog/writer.go", before, `
	if len(batch) > 0 {
		if _, err := w.out.WriteVec(
`},
	{"log: a batch is written", "internal/disklog/writer.go", before, `
	if seal {
		if err := l.checkActive(); err != nil { // writing at its end would restore the size of a file that was cut
`},
	{"log: a batch is synced", "internal/disklog/writer.go", before, `l.stats.synced(l.o.Clock.Now().Sub(start), pos-w.pos)`},
	{"log: a batch is told of", "internal/disklog/writer.go", after, `
	for i, p := range batch {
		p.done(commitlog.Offset(first)+commitlog.Offset(i), nil)
	}
`},
	{"log: a mark is about to be written", "internal/disklog/writer.go", before, `if _, err := w.out.WriteAt(b, w.pos); err != nil {`},
	{"log: a mark is written", "internal/disklog/writer.go", before, `
	w.marked = true
	return nil
`},
	{"log: a segment's index is written", "internal/disklog/writer.go", after, `
		if _, err := w.out.WriteAt(b, w.active.size-int64(len(b))); err != nil {
			return err
		}
`},
	{"log: the next segment is about to be used", "internal/disklog/writer.go", before, `if err := w.closeFile(); err != nil {`},
	{"log: the next segment is used", "internal/disklog/writer.go", after, `w.pos, w.synced, w.marked, w.count = dataStart, dataStart, false, 0`},
	{"segment: the file is made", "internal/disklog/segment.go", before, `s, err := m.prepare(f, number, size, fill, write)`},
	{"open: an unfinished file is removed", "internal/disklog/open.go", after, `
		if err := l.fs.Remove(l.files.path(name)); err != nil {
			return openError(l.o.Dir, err)
		}
`},
	{"segment: its room is taken", "internal/disklog/segment.go", before, `if fill != nil {`},
	{"segment: its header is written", "internal/disklog/segment.go", before, `if err := f.Sync(); err != nil {`},
	{"segment: it is synced", "internal/disklog/segment.go", before, `return &segment{header: h, name: m.path(segmentName(number)), size: size, seal: seal, end: dataStart}, nil`},
	{"segment: it has its name", "internal/disklog/segment.go", before, `if err := m.fs.SyncDir(m.dir); err != nil {`},
	{"segment: its name is synced", "internal/disklog/segment.go", after, `
	if err := m.fs.SyncDir(m.dir); err != nil {
		return err
	}
`},
	{"segment: it is ready to be the next", "internal/disklog/maintain.go", before, `k.nextSize = min(max(k.nextSize, growth*seg.size), l.o.SegmentBytes)`},
	{"segment: a spare is about to be used again", "internal/disklog/segment.go", before, `
	size, err := f.Size()
	var s *segment
`},
	{"reserve: the file is synced", "internal/disklog/maintain.go", before, `return l.files.publish(name+tmpExt, name)`},
	{"reserve: it is ready", "internal/disklog/maintain.go", after, `k.reserve = l.reserveSize()`},
	{"snapshot: begun", "internal/broker/snapshots.go", after, `func (b *core) beginSnapshot() {`},
	{"snapshot: the file is made", "internal/disklog/snapshots.go", before, `err = s.fill(f, at, write)`},
	{"snapshot: the file is full", "internal/disklog/snapshots.go", before, `if err := f.Sync(); err != nil {`},
	{"snapshot: the file is synced", "internal/disklog/snapshots.go", after, `
	if err := f.Sync(); err != nil {
		return err
	}
`},
	{"snapshot: the file has its name", "internal/disklog/snapshots.go", before, `
	if err := s.fs.SyncDir(s.dir); err != nil {
		return true, saveError(name, err)
`},
	{"snapshot: its name is synced", "internal/disklog/snapshots.go", before, `return true, s.dropOld()`},
	{"snapshot: an older one is removed", "internal/disklog/snapshots.go", before, `
	if err := s.fs.SyncDir(s.dir); err != nil {
		return wrap(surgetank.CodeInternal, fmt.Sprintf("syncing %s failed: %v; the new snapshot is saved", s.dir, err), err)
`},
	{"snapshot: done, nothing is trimmed yet", "internal/broker/snapshots.go", before, `number := s.number`},
	{"trim: about to be written down", "internal/disklog/trim.go", before, `last := trimmed[len(trimmed)-1]`},
	{"trim: the state is written", "internal/disklog/state.go", before, `if err := k.stateFile.Sync(); err != nil {`},
	{"trim: the state is synced", "internal/disklog/state.go", before, `next.level, next.since = dataformat.Written().Number, dataformat.Written().Since`},
	{"open: a trimmed segment is removed", "internal/disklog/open.go", after, `
		if err := l.fs.Remove(name); err != nil {
			return err
		}
`},
	{"trim: a file is gone or a spare", "internal/disklog/trim.go", before, `
		changed = true
	}
	k.dead = busy
`},
	{"trim: the directory is synced", "internal/disklog/trim.go", after, `
	if err := l.fs.SyncDir(l.o.Dir); err != nil {
		return err
	}
`},
	{"stop: the closing snapshot is about to be made", "internal/broker/snapshots.go", before, `if err := b.saveAll(); err != nil {`},
	{"stop: the closing snapshot is stored", "internal/broker/snapshots.go", after, `
	if err := b.saveAll(); err != nil {
		b.logger.Error("the closing snapshot could not be stored; the next start replays the log instead", "error", err)
	}
`},
	{"stop: the last mark is written", "internal/disklog/writer.go", before, `
	if err == nil {
		err = w.out.Sync()
`},
	{"stop: the last mark is synced", "internal/disklog/writer.go", after, `
	if err != nil {
		return failed(err, false)
	}
`},
	{"stop: the log is closed", "internal/disklog/disklog.go", before, `
	l.mu.Lock()
	l.err = errClosed
`},
	{"sink: the target is claimed", "sink/session.go", before, `r.lastEpoch, r.opts.Way = state.Epoch, "" // a way applies once, to the contradiction that the user saw`},
	{"sink: a batch is about to be committed", "sink/attempt.go", before, `mark := l.s.tick.Load()`},
	{"sink: a batch is committed, nothing is acked", "sink/attempt.go", before, `l.committed(good, mark)`},
	{"sink: the acks are on their way", "sink/attempt.go", after, `l.conclude(o)`},
	{"sink: a transaction has begun", "sink/sqlite/lane.go", before, `err := l.insertRows(ctx, 0, len(l.rows))`},
	{"sink: the rows are in the transaction", "sink/sqlite/lane.go", after, `func (l *lane) finish(ctx context.Context, p sink.Progress) error {`},
	{"sink: the progress is in the transaction", "sink/sqlite/lane.go", after, `
	if n != 1 {
		return errStale
	}
`},
}

// All returns all points.
func All() []Point {
	list := make([]Point, len(points))
	for i, p := range points {
		list[i] = p.point
	}
	return list
}
