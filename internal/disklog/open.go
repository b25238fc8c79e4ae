package disklog

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/vfs"
)

func isExist(err error) bool { return errors.Is(err, iofs.ErrExist) }

// listing contains the names of the files in a log's directory.
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

// recover prepares the log for writing. It finds the end of the log, copies entries that are
// possibly not on the medium, and fails if entries are damaged. The table shows the possible traces
// of a crash and what recover does:
//
//	no state file, no segments     a new log, or an interrupted creation: create it
//	*.tmp                          never part of the log: remove it
//	segments below state.oldest    trimmed, not yet removed: remove them
//	a segment missing in between   lost by the disk or a user: ErrCorrupt
//	a segment of another log       put there by a user: ErrCorrupt
//	last frames, marked synced     the end; writing continues after them
//	last frames, not marked        copy to the next segment, sync there, cut here
//	a broken frame, not marked     torn tail: cut, with a line in the log
//	a broken frame, marked         ErrCorrupt
//	an empty segment at the end    the next one, or the active one if the one before it is sealed
func (l *Log) recover() error {
	ls, err := listDir(l.fs, l.o.Dir)
	if err != nil {
		return err
	}
	for _, name := range ls.unfinished {
		if err := l.fs.Remove(l.files.path(name)); err != nil {
			return openError(l.o.Dir, err)
		}
	}
	if !ls.state {
		if l.o.Only != (Identity{}) {
			return absent("there is no log in "+l.o.Dir+" now", nil)
		}
		if err := l.create(&ls); err != nil {
			return err
		}
	}
	if err := l.openState(); err != nil {
		return err
	}
	if only := l.o.Only; only != (Identity{}) && only.log != l.files.log {
		return absent("there is another log in "+l.o.Dir+" now", nil)
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

// adoptSpares reuses the reserve and the spares of an earlier opening. It removes superfluous ones.
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

// openSegments reads the headers of the live segments and removes trimmed ones. It fails if a
// segment is missing in between.
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

// removeTrimmed removes trimmed segments whose files an earlier opening did not remove any more. It
// first writes and syncs the state file again, because after a failed sync its content can be in
// the page cache only.
func (l *Log) removeTrimmed(numbers []uint64) error {
	if err := l.stranger(numbers); err != nil {
		return err // without a durable state file, the segment's data could still be needed
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

// tail is the end of the log as found at Open.
type tail struct {
	at      int      // index of the last segment with a frame; 0 if no segment has a frame
	found   *scanned // the frames of that segment
	sealed  bool     // the last segment with a frame is complete; the next segment is the active one
	indexed bool     // the segment's index matches its entries
}

// findTail reads the segments backwards from the last one until it finds one with a frame.
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
			continue // the segment was prepared and never used
		}
		if sc.damaged() {
			return tail{}, damaged(s.name, sc.end, "no whole entry begins here (%s), but later ones show that %d bytes from here on had been synced", orNone(sc.reason), sc.synced-sc.end)
		}
		sealed = sealed && ft.count == len(sc.index) && ft.end == sc.end
		indexed := sealed
		if len(segs)-i > 2 {
			sealed = true // two empty segments can follow only a sealed segment; its footer is damaged, its entries are intact
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

// chain loads the index of every segment and checks that the entries have consecutive numbers.
func (l *Log) chain(segs []*segment, t tail) error {
	last := segs[t.at]
	last.first, last.index, last.end = t.found.first, t.found.index, t.found.end
	last.sealed, last.indexed = t.sealed, t.indexed
	behind, copied := last.first, last.header.born > dataStart
	for i := t.at - 1; i >= 0; i-- {
		s := segs[i]
		if err := l.loadIndex(s, behind, copied); err != nil {
			return err
		}
		if s.first != 0 {
			behind = s.first
		}
		copied = s.header.born > dataStart
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

// loadIndex loads the index of a segment that is not the last, from its footer or else from its
// frames. behind is the number of the first entry in later segments (0: not known); s must contain
// all entries before it. copied means that a recovery copied the last entries of s to the next
// segment. The index of s then ends before the copied entries.
func (l *Log) loadIndex(s *segment, behind uint64, copied bool) error {
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
			return damaged(s.name, sc.end, "no whole entry begins here (%s), and later segments are in use", orNone(sc.reason))
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
		if !copied || behind < s.first {
			return damaged(s.name, s.end, "it ends with entry %d, but the next segment begins with %d", s.next()-1, behind)
		}
		s.end, _ = s.place(behind)
		s.index = s.index[:behind-s.first]
	}
	return nil
}

// resume prepares the log for writing after its tail.
func (l *Log) resume(segs []*segment, t tail) error {
	active, spare := segs[t.at], segs[t.at+1:]
	live := segs[:t.at+1]
	switch {
	case !t.found.clean():
		if len(spare) > 0 { // the segment with the copied tail needs this name
			if _, err := l.handles.retire(spare[0]); err != nil {
				return openError(l.o.Dir, err)
			}
		}
		fresh, err := l.copyTail(active, t.found)
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
