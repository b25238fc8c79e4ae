package disklog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// A stranger is a segment file that a user put into the directory: a file of another log, or a
// second copy of a segment under another name. Its number would make other segments look missing.
// So Open and the tools report strangers first.

// strangerIn returns why a segment file is a stranger. It returns "" if the file is no stranger, or
// if its header cannot be read. has reports whether the directory has a segment file with a number.
func strangerIn(f vfs.File, name string, number uint64, log id, has func(uint64) bool) (what string, at int64, err error) {
	b := make([]byte, headerCopy+headerSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", 0, unreadable(name, 0, err)
	}
	h, wrong := decodeSegmentHeader(b[:min(n, headerSize)])
	if wrong != "" && n > headerCopy {
		h, wrong = decodeSegmentHeader(b[headerCopy:n])
	}
	switch {
	case wrong != "":
	case h.log != log:
		return "the file belongs to another log; move it out of the directory", 16, nil
	case h.number != number && has(h.number):
		return fmt.Sprintf("the file is a copy of segment %d, which is there under its own name; move it out of the directory", h.number), 48, nil
	}
	return "", 0, nil
}

// splitStrangers returns the segments of a directory that belong to its log, and a report for each
// stranger. Without a state file, the log is the one with the most segments. If several logs have
// equally many, it is the log of the oldest segment.
func splitStrangers(fs vfs.FS, dir string, numbers []uint64, st state, known bool) (own []uint64, strangers []FileReport, err error) {
	log := st.log
	if !known {
		if log, err = mostSegments(fs, dir, numbers); err != nil {
			return nil, nil, err
		}
	}
	has := func(n uint64) bool { return slices.Contains(numbers, n) }
	for _, number := range numbers {
		f := FileReport{File: filepath.Join(dir, segmentName(number)), Kind: KindSegment, Foreign: true}
		err := withFile(fs, f.File, func(file vfs.File) error {
			what, at, err := strangerIn(file, f.File, number, log, has)
			if what != "" {
				f.Problems = []Problem{{File: f.File, Offset: at, What: what}}
			}
			f.Size, _ = file.Size()
			return err
		})
		if err != nil && !errors.Is(err, commitlog.ErrCorrupt) {
			return nil, nil, err
		}
		if len(f.Problems) > 0 {
			strangers = append(strangers, f)
		} else {
			own = append(own, number)
		}
	}
	return own, strangers, nil
}

// mostSegments returns the id of the log with the most segments.
func mostSegments(fs vfs.FS, dir string, numbers []uint64) (best id, err error) {
	count, most := map[id]int{}, 0
	var order []id
	for _, number := range numbers {
		name := filepath.Join(dir, segmentName(number))
		err := withFile(fs, name, func(f vfs.File) error {
			h, _, _, ok, err := findHeader(f, name)
			if err != nil || !ok || h.log == (id{}) {
				return err
			}
			if count[h.log]++; count[h.log] == 1 {
				order = append(order, h.log)
			}
			return nil
		})
		if err != nil && !errors.Is(err, commitlog.ErrCorrupt) {
			return best, err
		}
	}
	for _, log := range order {
		if count[log] > most {
			best, most = log, count[log]
		}
	}
	return best, nil
}

// stranger returns an error that names the first stranger among the segment files, or nil. It is
// called when segments seem to be missing.
func (l *Log) stranger(numbers []uint64) error {
	has := func(n uint64) bool { return slices.Contains(numbers, n) }
	for _, number := range numbers {
		name := l.files.path(segmentName(number))
		f, err := l.fs.Open(name, vfs.Read)
		if err != nil {
			return openError(l.o.Dir, err)
		}
		what, at, err := strangerIn(f, name, number, l.files.log, has)
		if err = errorsJoin(err, f.Close()); err != nil {
			return err
		}
		if what != "" {
			return misplaced(name, at, what)
		}
	}
	return nil
}
