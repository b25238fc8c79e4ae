package disklog

import (
	"errors"
	"hash/crc32"
	"path/filepath"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// EntryInfo is one entry, as Inspect returns it.
type EntryInfo struct {
	File     string
	Segment  uint64
	Offset   commitlog.Offset
	Position int64 // position of the frame in the file
	Size     int   // size of the entry in bytes
	Lost     bool  // a placeholder of an entry that repair could not read
	Data     []byte
}

// Inspect visits every intact entry of a log, oldest first, even after damage in its segment. Data
// is only read if withData is true, and is valid only during the visit. Like Verify, Inspect needs
// the log to be closed and changes nothing.
func Inspect(fs vfs.FS, dir string, withData bool, visit func(EntryInfo) error) error {
	lock, err := lockClosed(fs, dir)
	if err != nil {
		return err
	}
	err = inspect(fs, dir, withData, false, visit)
	if closeErr := lock.Close(); err == nil && closeErr != nil {
		err = openError(dir, closeErr)
	}
	return err
}

// inspect visits entries. If counting is set, it leaves out entries after a torn tail.
func inspect(fs vfs.FS, dir string, withData, counting bool, visit func(EntryInfo) error) error {
	ls, err := listDir(fs, dir)
	if err != nil {
		return err
	}
	var st state
	known := false
	if ls.state {
		if err := withFile(fs, filepath.Join(dir, stateName), func(f vfs.File) (err error) {
			st, err = readState(f, stateName)
			known = err == nil
			return err
		}); err != nil && !errors.Is(err, commitlog.ErrCorrupt) {
			return err
		}
	}
	own, _, err := splitStrangers(fs, dir, ls.segments, st, known)
	if err != nil {
		return err
	}
	last, err := lastUsed(fs, dir, own)
	if err != nil {
		return err
	}
	for _, number := range own {
		name := filepath.Join(dir, segmentName(number))
		err := withFile(fs, name, func(file vfs.File) error {
			h, size, _, ok, err := findHeader(file, name)
			if err != nil || !ok {
				return err
			}
			var buf []byte
			limit := size
			if counting {
				x, err := extentOf(file, name, h, size, number >= last, st.known(number))
				if err != nil {
					return err
				}
				limit = x.limit
			}
			_, _, _, err = walkFrames(file, name, h, limit, func(pos int64, fr frame) error {
				e := EntryInfo{File: name, Segment: number, Offset: commitlog.Offset(fr.number), Position: pos, Size: fr.length, Lost: fr.kind == frameLost}
				if withData && !e.Lost {
					if cap(buf) < fr.length {
						buf = make([]byte, fr.length) // the frame is intact: its checksum has been verified
					}
					e.Data = buf[:fr.length]
					if err := readFull(file, name, e.Data, pos+frameHeader); err != nil {
						return err
					}
					if crc32.Update(newSealer(h.id).entryBase(pos, fr.number), castagnoli, e.Data) != fr.sum {
						return damaged(name, pos, "entry %d changed while it was read", fr.number)
					}
				}
				return visit(e)
			}, func(int64, int64) error { return nil })
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
