package disklog

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/failpoint"
	"github.com/surgetank/surgetank/internal/vfs"
)

func isExist(err error) bool { return errors.Is(err, iofs.ErrExist) }

// listing is what a log's directory holds, by the names.
type listing struct {
	segments   []uint64 // sorted
	spares     []string
	unfinished []string
	state      bool
	reserve    bool
}

func listDir(fs vfs.FS, dir string) (ls listing, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return ls, wrap(surgetank.CodeInternal, fmt.Sprintf("listing the data directory %s failed: %v", dir, err), err)
	}
	for _, name := range names {
		stem, tmp := strings.CutSuffix(name, tmpExt)
		number, isSegment := parseSegmentName(stem)
		switch {
		case tmp && (isSegment || stem == reserveName || stem == stateName):
			ls.unfinished = append(ls.unfinished, name)
		case tmp:
		case isSegment:
			ls.segments = append(ls.segments, number)
		case name == stateName:
			ls.state = true
		case name == reserveName:
			ls.reserve = true
		case strings.HasSuffix(name, spareExt):
			if _, ok := parseSegmentName(strings.TrimSuffix(name, spareExt) + segmentExt); ok {
				ls.spares = append(ls.spares, name)
			}
		}
	}
	slices.Sort(ls.segments)
	return ls, nil
}

// recover brings the log into the state in which it can be written: it finds the end, copies what
// may not be on the medium, and refuses where entries are damaged. What a crash may have left, and
// what becomes of it:
//
//	no state file, no segments     a new log, or one whose making was interrupted: made
//	*.tmp                          never part of the log: removed
//	segments below state.oldest    trimmed, not yet removed: removed
//	a segment missing in between   lost by the disk or a person: ErrCorrupt
//	a segment of another log       put there by a person: ErrCorrupt
//	last frames, marked synced     the end; writing goes on behind them
//	last frames, not marked        copied to the next segment, synced there, cut here
//	a broken frame, not marked     torn tail: cut, with a line in the log
//	a broken frame, marked         ErrCorrupt
//	an empty segment at the end    the next one, or the active one if that before it is sealed
func (l *Log) recover() error {
	ls, err := listDir(l.fs, l.o.Dir)
	if err != nil {
		return err
	}
	for _, name := range ls.unfinished {
		if err := l.fs.Remove(l.files.path(name)); err != nil {
			return openError(l.o.Dir, err)
		}
		failpoint.Reach(failpoint.OpenUnfinishedRemoved)
	}
	if !ls.state {
		if err := l.create(&ls); err != nil {
			return err
		}
	}
	if err := l.openState(); err != nil {
		return err
	}
	if err := l.adoptSpares(ls); err != nil {
		return err
	}
	segs, err := l.openSegments(ls.segments)
	if err != nil {
		return err
	}
	tail, err := l.findTail(segs)
	if err != nil {
		return err
	}
	if err := l.chain(segs, tail); err != nil {
		return err
	}
	if err := l.resume(segs, tail); err != nil {
		return err
	}
	return l.raiseLevel()
}

func openError(dir string, err error) error {
	var e *surgetank.Error
	if errors.As(err, &e) {
		return err
	}
	code := surgetank.CodeInternal
	if vfs.IsNoSpace(err) {
		code = surgetank.CodeFull
	}
	return wrap(code, fmt.Sprintf("opening the log in %s failed: %v", dir, err), err)
}

// adoptSpares takes over the reserve and the spares that an earlier run has left, and removes what
// is too much.
func (l *Log) adoptSpares(ls listing) error {
	k := &l.keeper
	k.nextSize = min(growth*l.o.FirstBytes, l.o.SegmentBytes)
	fileSize := func(name string) (int64, error) {
		f, err := l.fs.Open(name, vfs.Read)
		if err != nil {
			return 0, err
		}
		size, err := f.Size()
		return size, errorsJoin(err, f.Close())
	}
	if ls.reserve {
		size, err := fileSize(l.files.path(reserveName))
		if err != nil {
			return openError(l.o.Dir, err)
		}
		k.reserve = size
	}
	for _, name := range ls.spares {
		path := l.files.path(name)
		size, err := fileSize(path)
		if err == nil && size == l.o.SegmentBytes && len(k.spares) < maxSpares {
			k.spares = append(k.spares, path)
			continue
		}
		if err = errorsJoin(err, l.fs.Remove(path)); err != nil {
			return openError(l.o.Dir, err)
		}
	}
	return nil
}

// openSegments reads the headers of the live segments, which must be there without a gap, and
// removes trimmed ones.
func (l *Log) openSegments(numbers []uint64) ([]*segment, error) {
	st := l.keeper.state
	if len(numbers) > 0 && numbers[0] < st.oldest {
		if err := l.removeTrimmed(numbers); err != nil {
			return nil, openError(l.o.Dir, err)
		}
	}
	var segs []*segment
	for _, number := range numbers {
		name := l.files.path(segmentName(number))
		if number < st.oldest {
			continue
		}
		if want := st.oldest + uint64(len(segs)); number != want {
			if err := l.stranger(numbers); err != nil {
				return nil, err
			}
			return nil, l.missing(want)
		}
		s, err := l.openSegment(name, number)
		if err != nil {
			return nil, err
		}
		segs = append(segs, s)
	}
	if len(segs) == 0 {
		return nil, l.missing(st.oldest)
	}
	return segs, nil
}

// removeTrimmed removes segments that were trimmed when the log stopped before it had removed them.
// What the state file says may be in the page cache alone, after a failed sync, so it is written
// and synced once more before anything rests on it.
func (l *Log) removeTrimmed(numbers []uint64) error {
	if err := l.stranger(numbers); err != nil {
		return err // it may hold what somebody still needs
	}
	if err := l.writeSlot(l.keeper.state.oldest, l.keeper.state.first); err != nil {
		return err
	}
	for _, number := range numbers {
		if number >= l.keeper.state.oldest {
			break
		}
		name := l.files.path(segmentName(number))
		l.o.Logger.Info("removing a segment that was trimmed", "file", name)
		if err := l.fs.Remove(name); err != nil {
			return err
		}
		failpoint.Reach(failpoint.OpenTrimmedRemoved)
	}
	return l.fs.SyncDir(l.o.Dir)
}

func (l *Log) openSegment(name string, number uint64) (*segment, error) {
	s := &segment{name: name, end: dataStart}
	f, err := l.handles.acquire(s)
	if err != nil {
		return nil, err
	}
	defer l.handles.release(s)
	s.header, s.size, err = readHeader(f, name, number, l.files.log)
	if err != nil {
		return nil, err
	}
	s.seal = newSealer(s.header.id)
	return s, nil
}

// tail is what was found at the log's end.
type tail struct {
	at      int      // index of the last segment in which something was written (or else the first)
	found   *scanned // in it
	sealed  bool     // it is complete: what is behind it is the active segment
	indexed bool     // its index says the same as its entries
}

// findTail reads the segments from the last one back to one in which something was written.
func (l *Log) findTail(segs []*segment) (tail, error) {
	for i := len(segs) - 1; ; i-- {
		s := segs[i]
		f, err := l.handles.acquire(s)
		if err != nil {
			return tail{}, err
		}
		sc, err := scanSegment(f, s.name, s.header, s.size, nil)
		var ft footer
		var sealed bool
		if err == nil {
			ft, _, sealed, err = readIndex(f, s.name, s.seal, s.size)
		}
		l.handles.release(s)
		if err != nil {
			return tail{}, err
		}
		sc.synced = max(sc.synced, l.keeper.state.known(s.header.number))
		if s.size < s.header.size && !sealed {
			return tail{}, damaged(s.name, s.size, "the file has lost %d bytes at its end", s.header.size-s.size)
		}
		if i > 0 && sc.first == 0 && !sc.marked && sc.beyond == 0 && sc.reason == "" && sc.synced == dataStart && !sealed {
			continue // prepared and never used
		}
		if sc.damaged() {
			return tail{}, damaged(s.name, sc.end, "no whole entry begins here (%s), but later ones show that %d bytes from here on had been synced", orNone(sc.reason), sc.synced-sc.end)
		}
		sealed = sealed && ft.count == len(sc.index) && ft.end == sc.end
		indexed := sealed
		if len(segs)-i > 2 {
			sealed = true // only behind a sealed segment can two be empty: its footer is damaged, its entries are not
		}
		if sealed && i == len(segs)-1 {
			return tail{}, damaged(l.files.path(segmentName(s.header.number+1)), 0, "the file is missing: the segment before it is complete")
		}
		return tail{at: i, found: sc, sealed: sealed, indexed: indexed}, nil
	}
}

func orNone(reason string) string {
	if reason == "" {
		return "nothing that looks like one"
	}
	return reason
}

// chain loads the index of every segment and checks that the entries follow each other without a
// gap.
func (l *Log) chain(segs []*segment, t tail) error {
	last := segs[t.at]
	last.first, last.index, last.end = t.found.first, t.found.index, t.found.end
	last.sealed, last.indexed = t.sealed, t.indexed
	behind, rescued := last.first, last.header.born > dataStart
	for i := t.at - 1; i >= 0; i-- {
		s := segs[i]
		if err := l.loadIndex(s, behind, rescued); err != nil {
			return err
		}
		if s.first != 0 {
			behind = s.first
		}
		rescued = s.header.born > dataStart
	}
	want := l.keeper.state.first
	for _, s := range segs[:t.at+1] {
		if s.first == 0 {
			s.first = want
		}
		if s.first != want {
			return damaged(s.name, dataStart, "its first entry is %d, and it should be %d", s.first, want)
		}
		want = s.next()
	}
	for _, s := range segs[t.at+1:] {
		s.first = want
	}
	return nil
}

// loadIndex gets the index of a segment that others follow, from its footer or else from its
// frames. behind is the number of the first entry behind the segment (0: not known), so this one
// must reach up to there; entries from there on were copied to the next segment (rescued) by a
// recovery.
func (l *Log) loadIndex(s *segment, behind uint64, rescued bool) error {
	f, err := l.handles.acquire(s)
	if err != nil {
		return err
	}
	defer l.handles.release(s)
	ft, index, ok, err := readIndex(f, s.name, s.seal, s.size)
	if err != nil {
		return err
	}
	if ok {
		s.first, s.index, s.end, s.indexed = ft.first, index, ft.end, true
	} else {
		l.o.Logger.Warn("a segment has no index and is read as a whole", "file", s.name)
		sc, err := scanSegment(f, s.name, s.header, s.size, nil)
		if err != nil {
			return err
		}
		if sc.damaged() || behind == 0 && !sc.clean() {
			return damaged(s.name, sc.end, "no whole entry begins here (%s), and segments behind this one are in use", orNone(sc.reason))
		}
		s.first, s.index, s.end = sc.first, sc.index, sc.end
	}
	s.sealed = true
	if behind == 0 {
		return nil
	}
	if s.first == 0 {
		s.first = behind
	}
	if s.next() < behind {
		return damaged(s.name, s.end, "entry %d should begin here", s.next())
	}
	if s.next() > behind {
		if !rescued || behind < s.first {
			return damaged(s.name, s.end, "it ends with entry %d, but the next segment begins with %d", s.next()-1, behind)
		}
		s.end, _ = s.place(behind)
		s.index = s.index[:behind-s.first]
	}
	return nil
}

// resume makes the log ready for writing behind its tail.
func (l *Log) resume(segs []*segment, t tail) error {
	active, spare := segs[t.at], segs[t.at+1:]
	live := segs[:t.at+1]
	switch {
	case !t.found.clean():
		if len(spare) > 0 { // its name is taken
			if _, err := l.handles.bury(spare[0]); err != nil {
				return openError(l.o.Dir, err)
			}
		}
		fresh, err := l.rescue(active, t.found)
		if err != nil {
			return openError(l.o.Dir, err)
		}
		live = append(slices.Clip(live), fresh)
		active = fresh
		if len(spare) > 0 {
			spare = spare[1:]
		}
	case t.sealed:
		active, spare = spare[0], spare[1:]
		live = append(slices.Clip(live), active)
	}
	out, err := l.fs.Open(active.name, vfs.ReadWrite)
	if err != nil {
		return openError(l.o.Dir, err)
	}
	l.writer = writer{active: active, out: out, pos: active.end, synced: active.end, count: len(active.index)}
	if len(spare) > 0 {
		out, err := l.fs.Open(spare[0].name, vfs.ReadWrite)
		if err != nil {
			return openError(l.o.Dir, err)
		}
		l.next = &ready{spare[0], out}
	}
	l.segs = live
	l.durable.Store(active.next() - 1)
	l.keeper.since.Store(l.o.Clock.Now().UnixNano())
	return nil
}
