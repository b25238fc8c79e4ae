package disklog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// FileKind is the kind of a file in a data directory.
type FileKind string

// The kinds of files.
const (
	KindState      FileKind = "state"
	KindSegment    FileKind = "segment"
	KindSnapshot   FileKind = "snapshot"
	KindSpare      FileKind = "spare"      // a file whose space later segments use; contains no data
	KindUnfinished FileKind = "unfinished" // the file of an interrupted write; contains no data
)

// Problem is one piece of damage.
type Problem struct {
	File   string // the path
	Offset int64
	What   string
	// FirstLost and LastLost are the entries lost by the damage. They are 0 if no entry is lost or
	// the numbers are not known.
	FirstLost, LastLost commitlog.Offset
	// Tail means that an unknown number of entries after this file's last intact entry is lost.
	Tail bool
}

// String returns the problem as one line.
func (p Problem) String() string {
	s := fmt.Sprintf("%s at byte %d: %s", p.File, p.Offset, p.What)
	switch {
	case p.FirstLost == 0:
	case p.FirstLost == p.LastLost:
		s += fmt.Sprintf(" (entry %d)", p.FirstLost)
	default:
		s += fmt.Sprintf(" (entries %d to %d)", p.FirstLost, p.LastLost)
	}
	if p.Tail {
		s += " (all entries from there on)"
	}
	return s
}

// FileReport is the result for one file.
type FileReport struct {
	File     string
	Kind     FileKind
	Size     int64
	Entries  int              // intact entries
	First    commitlog.Offset // first entry of a segment; offset of a snapshot
	Last     commitlog.Offset
	Made     time.Time // creation time of a segment
	Sealed   bool      // the segment has its index and footer
	Foreign  bool      // the segment belongs to another log, or is a second copy
	Problems []Problem // damage that makes Open or reading fail
	Notes    []string  // findings that do not make Open or reading fail
}

// Report is the result of Verify.
type Report struct {
	Files    []FileReport
	Entries  int
	First    commitlog.Offset
	Last     commitlog.Offset
	Bytes    int64 // size of the files that were read
	Problems []Problem
}

// Whole reports whether there is no problem.
func (r *Report) Whole() bool { return len(r.Problems) == 0 }

// Verify reads every byte of a log and its snapshots and reports damage. It changes nothing. The
// log must be closed, otherwise Verify fails with ErrLocked. report, if not nil, is called for each
// file. Verify returns an error only if reading fails; damage is in the report.
func Verify(fs vfs.FS, dir string, report func(FileReport)) (*Report, error) {
	lock, err := lockClosed(fs, dir)
	if err != nil {
		return nil, err
	}
	r, err := verify(fs, dir, report)
	if closeErr := lock.Close(); err == nil && closeErr != nil {
		err = openError(dir, closeErr)
	}
	return r, err
}

// verifier is one run of Verify. It passes knowledge from one file to the next.
type verifier struct {
	fs     vfs.FS
	dir    string
	report func(FileReport)
	r      Report
	state  state
	known  bool             // state was read
	covers commitlog.Offset // offset of the newest intact snapshot
	last   uint64           // the last segment with a frame
}

func verify(fs vfs.FS, dir string, report func(FileReport)) (*Report, error) {
	v := &verifier{fs: fs, dir: dir, report: report}
	ls, err := listDir(fs, dir)
	if err != nil {
		return nil, err
	}
	if err := v.verifyState(ls); err != nil {
		return nil, err
	}
	snapshots, err := v.verifySnapshots()
	if err != nil {
		return nil, err
	}
	if err := v.verifySegments(ls); err != nil {
		return nil, err
	}
	for _, f := range snapshots {
		v.add(f)
	}
	for _, name := range append(ls.spares, ls.unfinished...) {
		kind := KindSpare
		if strings.HasSuffix(name, tmpExt) {
			kind = KindUnfinished
		}
		v.add(FileReport{File: filepath.Join(dir, name), Kind: kind})
	}
	return &v.r, nil
}

func (v *verifier) add(f FileReport) {
	v.r.Files = append(v.r.Files, f)
	v.r.Problems = append(v.r.Problems, f.Problems...)
	v.r.Bytes += f.Size
	if f.Kind == KindSegment && f.Entries > 0 {
		v.r.Entries += f.Entries
		if v.r.First == 0 {
			v.r.First = f.First
		}
		v.r.Last = f.Last
	}
	if v.report != nil {
		v.report(f)
	}
}

// note turns an error about damage into a problem of a file. It returns other errors.
func (f *FileReport) note(err error) error {
	if err == nil {
		return nil
	}
	if !errors.Is(err, commitlog.ErrCorrupt) {
		return err
	}
	what, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), f.File+" is damaged "), "; ")
	f.Problems = append(f.Problems, Problem{File: f.File, What: what})
	return nil
}

func (v *verifier) verifyState(ls listing) error {
	f := FileReport{File: filepath.Join(v.dir, stateName), Kind: KindState}
	if !ls.state {
		f.Problems = append(f.Problems, Problem{File: f.File, What: "the file is missing"})
		v.add(f)
		return nil
	}
	err := withFile(v.fs, f.File, func(file vfs.File) error {
		st, err := readState(file, f.File)
		if err == nil {
			v.state, v.known = st, true
		}
		if f.Size, _ = file.Size(); err != nil {
			return err
		}
		if st.other != "" {
			f.Notes = append(f.Notes, "one of its two slots "+st.other+"; the other is used, and may be older than the newest trim")
		}
		return nil
	})
	if err := f.note(err); err != nil {
		return err
	}
	v.add(f)
	return nil
}

// withFile opens a file for reading and calls use.
func withFile(fs vfs.FS, name string, use func(vfs.File) error) error {
	f, err := fs.Open(name, vfs.Read)
	if err != nil {
		return unreadable(name, 0, err)
	}
	err = use(f)
	if closeErr := f.Close(); err == nil && closeErr != nil {
		err = unreadable(name, 0, closeErr)
	}
	return err
}

// verifySegments verifies the segments, oldest first.
func (v *verifier) verifySegments(ls listing) error {
	own, strangers, err := splitStrangers(v.fs, v.dir, ls.segments, v.state, v.known)
	if err != nil {
		return err
	}
	if v.last, err = lastUsed(v.fs, v.dir, own); err != nil {
		return err
	}
	sealed := false       // the last segment is complete, so another must follow
	next := v.state.first // the number that the next entry should have; 0: not known
	expect := v.state.oldest
	missing := func(number uint64) {
		name := filepath.Join(v.dir, segmentName(number))
		v.add(FileReport{File: name, Kind: KindSegment, Problems: []Problem{{File: name, What: "the file is missing", Tail: true}}})
	}
	for _, number := range own {
		name := filepath.Join(v.dir, segmentName(number))
		if v.known && number < v.state.oldest {
			v.add(FileReport{File: name, Kind: KindSegment, Notes: []string{"trimmed, and not yet removed"}})
			continue
		}
		for ; expect != 0 && expect < number; expect++ {
			missing(expect)
			next = 0
		}
		expect = number + 1
		f := FileReport{File: name, Kind: KindSegment}
		err := withFile(v.fs, name, func(file vfs.File) error {
			return v.verifySegment(file, &f, number, &next)
		})
		if err != nil {
			return err
		}
		if number == own[len(own)-1] && next != 0 && v.covers >= commitlog.Offset(next) {
			f.Problems = append(f.Problems, Problem{File: f.File, Offset: f.Size, FirstLost: commitlog.Offset(next), LastLost: v.covers, Tail: true,
				What: fmt.Sprintf("a snapshot covers entries up to %d, and the log ends before entry %d", v.covers, next)})
		}
		v.add(f)
		sealed = f.Sealed
	}
	if v.known {
		// The state file contains the number of the segment that was active when the file was
		// written.
		for ; expect <= max(v.state.oldest, v.state.endSegment) || sealed; expect++ {
			missing(expect)
			sealed = false
		}
	}
	for _, f := range strangers {
		v.add(f)
	}
	return nil
}

// verifySegment checks one segment's header, frames, index and footer.
func (v *verifier) verifySegment(file vfs.File, f *FileReport, number uint64, next *uint64) error {
	h, size, wrong, ok, err := findHeader(file, f.File)
	if err != nil {
		return f.note(err)
	}
	f.Size = size
	problem := func(at int64, format string, args ...any) *Problem {
		f.Problems = append(f.Problems, Problem{File: f.File, Offset: at, What: fmt.Sprintf(format, args...)})
		return &f.Problems[len(f.Problems)-1]
	}
	if wrong != "" {
		problem(0, "the segment's header %s", wrong)
	}
	if !ok {
		problem(dataStart, "without the header no entry can be read").Tail = true
		*next = 0
		return nil
	}
	if wrong == "" {
		f.Made = time.Unix(h.created, 0).UTC()
		if h.number != number {
			problem(48, "the file holds segment %d, not the one that its name says", h.number)
		}
	}
	x, err := extentOf(file, f.File, h, size, number >= v.last, v.state.known(number))
	if err != nil {
		return f.note(err)
	}
	f.Sealed = x.sealed
	if x.note != "" {
		f.Notes = append(f.Notes, x.note)
	}
	var index []uint32
	var hole *Problem
	pending := *next
	end, synced, marked, err := walkFrames(file, f.File, h, x.limit, func(pos int64, fr frame) error {
		switch {
		case hole != nil && pending != 0 && fr.number > pending:
			hole.FirstLost, hole.LastLost = commitlog.Offset(pending), commitlog.Offset(fr.number-1)
		case pending != 0 && fr.number > pending:
			p := problem(pos, "entries are missing before this one")
			p.FirstLost, p.LastLost = commitlog.Offset(pending), commitlog.Offset(fr.number-1)
		case pending != 0 && fr.number < pending && h.born == dataStart:
			problem(pos, "entry %d is here where %d should be", fr.number, pending)
		}
		hole = nil
		pending = fr.number + 1
		index = append(index, uint32(pos/alignment))
		if fr.kind == frameLost {
			f.Notes = append(f.Notes, fmt.Sprintf("entry %d was lost before this log was repaired", fr.number))
			return nil
		}
		if f.Entries == 0 {
			f.First = commitlog.Offset(fr.number)
		}
		f.Entries++
		f.Last = commitlog.Offset(fr.number)
		return nil
	}, func(from, to int64) error {
		hole = problem(from, "%d bytes are not whole entries, and a later one is", to-from)
		return nil
	})
	if err != nil {
		return f.note(err)
	}
	if hole != nil && pending != 0 && marked > pending { // the last entries are damaged, and a mark follows them
		hole.FirstLost, hole.LastLost = commitlog.Offset(pending), commitlog.Offset(marked-1)
		pending = marked
	} else if hole != nil {
		hole.Tail = true
	}
	*next = pending
	if synced = max(synced, v.state.known(number)); synced > end {
		problem(end, "%d bytes are not whole entries, and had been synced", synced-end).Tail = true
	}
	switch {
	case !x.sealed && size < h.size:
		problem(size, "the file has lost %d bytes at its end", h.size-size).Tail = true
	case !x.sealed && number < v.last:
		f.Notes = append(f.Notes, "it has no whole index, which is made again from the entries at every start")
	case x.sealed && len(f.Problems) == 0 && (x.footer.end != end || x.footer.count != len(index) || !slices.Equal(x.index, index)):
		problem(end, "the segment was complete with %d entries up to byte %d, and has %d up to byte %d", x.footer.count, x.footer.end, len(index), end)
	}
	return nil
}

// verifySnapshots verifies the snapshots. The log must reach at least to the offset of the newest
// intact snapshot.
func (v *verifier) verifySnapshots() (found []FileReport, err error) {
	names, err := v.fs.List(v.dir)
	if err != nil {
		return nil, openError(v.dir, err)
	}
	for _, name := range names {
		at, ok := parseSnapName(name)
		if !ok {
			continue
		}
		f := FileReport{File: filepath.Join(v.dir, name), Kind: KindSnapshot, First: at, Last: at}
		err := withFile(v.fs, f.File, func(file vfs.File) error {
			r, err := newSnapReader(file, f.File, at)
			if err != nil {
				return err
			}
			f.Size = r.size
			_, err = io.Copy(io.Discard, r)
			return err
		})
		if err := f.note(err); err != nil {
			return nil, err
		}
		if len(f.Problems) == 0 {
			v.covers = max(v.covers, at)
		}
		found = append(found, f)
	}
	return found, nil
}
