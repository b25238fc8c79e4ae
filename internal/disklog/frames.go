package disklog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// walkFrames visits every intact frame of a segment file in order, at any position, for tools that
// look at damaged logs. If no intact frame begins at a position, it searches for the next one and
// reports the gap.
//
// entry is called for each intact entry, including lost frames. gap is called for each range
// between intact frames that contains no frame. end is the position after the last intact frame.
// synced is the highest synced position in any frame. next is the highest number that a mark
// announces for the next entry. h.id must be known.
func walkFrames(f vfs.File, name string, h segmentHeader, size int64, entry func(pos int64, fr frame) error, gap func(from, to int64) error) (end, synced int64, next uint64, err error) {
	w := newWindow(f, name, size)
	seal := newSealer(h.id)
	end, synced = dataStart, max(h.born, dataStart)
	for pos := int64(dataStart); pos+frameHeader <= size; {
		fr, ok, err := wholeFrame(w, seal, pos, size)
		if err != nil {
			return end, synced, next, err
		}
		if !ok {
			if pos, err = nextMagic(w, pos+alignment, size); err != nil {
				return end, synced, next, err
			}
			continue
		}
		synced = max(synced, fr.synced)
		if pos > end {
			if err := gap(end, pos); err != nil {
				return end, synced, next, err
			}
		}
		if fr.kind == frameMark {
			end, next = pos, max(next, fr.number)
			if pos, err = nextMagic(w, pos+alignment, size); err != nil {
				return end, synced, next, err
			}
			continue
		}
		if err := entry(pos, fr); err != nil {
			return end, synced, next, err
		}
		pos += frameSize(fr.length)
		end = pos
	}
	return end, synced, next, nil
}

// wholeFrame reports whether an intact frame begins at a position.
func wholeFrame(w *window, seal sealer, pos, size int64) (fr frame, ok bool, err error) {
	b, err := w.at(pos, frameHeader)
	if err != nil || len(b) < frameHeader {
		return fr, false, err
	}
	fr, ok = seal.decode(b, pos)
	if !ok || fr.number == 0 || pos+frameSize(fr.length) > size {
		return fr, false, nil
	}
	sum, err := w.entrySum(seal.entryBase(pos, fr.number), pos+frameHeader, fr.length)
	return fr, sum == fr.sum, err
}

// nextMagic returns the next position from pos on at which a frame may begin, or the file's size.
func nextMagic(w *window, pos, size int64) (int64, error) {
	for pos+frameHeader <= size {
		b, err := w.at(pos, frameHeader)
		if err != nil {
			return 0, err
		}
		i := bytes.Index(b, []byte("Sg")) // every kind of frame begins with these bytes
		switch {
		case i < 0:
			pos += align(int64(len(b)) - 1)
		case i%alignment != 0:
			pos += align(int64(i))
		default:
			if pos += int64(i); pos+frameHeader > size {
				return size, nil
			}
			return pos, nil
		}
	}
	return size, nil
}

// findHeader returns a segment's header. If the header is damaged, it reads the header's copy, or
// else the footer, which has only the id. wrong describes the damage. ok reports whether the frames
// can be read.
func findHeader(f vfs.File, name string) (h segmentHeader, size int64, wrong string, ok bool, err error) {
	size, err = f.Size()
	if err != nil {
		return h, 0, "", false, unreadable(name, 0, err)
	}
	b := make([]byte, pageSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return h, size, "", false, unreadable(name, 0, err)
	}
	b = b[:n]
	if h, wrong = decodeSegmentHeader(b); wrong == "" {
		return h, size, "", true, nil
	}
	if n >= headerCopy {
		if c, w := decodeSegmentHeader(b[headerCopy:]); w == "" {
			return c, size, wrong, true, nil
		}
	}
	if size < dataStart+footerSize {
		return h, size, wrong, false, nil
	}
	t := make([]byte, footerSize)
	if _, err := f.ReadAt(t, size-footerSize); err != nil && !errors.Is(err, io.EOF) {
		return h, size, wrong, false, unreadable(name, size-footerSize, err)
	}
	copy(h.id[:], t[48:])
	if _, _, whole := newSealer(h.id).decodeFooter(t, size); whole {
		h.size, h.born = size, dataStart
		return h, size, wrong, true, nil
	}
	return h, size, wrong, false, nil
}

// extent is the part of a segment whose frames are valid.
type extent struct {
	limit  int64 // frames that begin at or after this position are ignored
	sealed bool
	footer footer
	index  []uint32
	note   string // describes a tail that Open would cut; empty if there is none
}

// extentOf finds the valid part of a segment. In a segment that is not sealed, it ends at the first
// position without an intact frame, unless later frames prove that the segment was synced beyond
// that position. In a sealed segment everything is valid. The exception is a segment that was being
// sealed at the crash. Then it is the last segment with frames (last). known is the synced position
// from the state file.
func extentOf(f vfs.File, name string, h segmentHeader, size int64, last bool, known int64) (x extent, err error) {
	x.footer, x.index, x.sealed, err = readIndex(f, name, newSealer(h.id), size)
	if err != nil || x.sealed && !last {
		x.limit = x.footer.end
		return x, err
	}
	sc, err := scanSegment(f, name, h, size, nil)
	if err == nil {
		sc.synced = max(sc.synced, known)
	}
	switch {
	case err != nil:
	case sc.damaged():
		x.limit = size
	case x.sealed && sc.end == x.footer.end:
		x.limit = sc.end
	default:
		x.limit, x.sealed = sc.end, false
		if sc.reason != "" || sc.beyond > 0 {
			x.note = fmt.Sprintf("an unfinished write at byte %d, which was not synced and so never confirmed, is cut at the next start", sc.end)
		}
	}
	return x, err
}

// lastUsed returns the number of the last segment that has a first frame, or 0 if there is none.
func lastUsed(fs vfs.FS, dir string, numbers []uint64) (last uint64, err error) {
	for i := len(numbers) - 1; i >= 0 && last == 0; i-- {
		name := filepath.Join(dir, segmentName(numbers[i]))
		err = withFile(fs, name, func(f vfs.File) error {
			h, size, _, ok, err := findHeader(f, name)
			if err != nil || !ok {
				return err
			}
			b, err := newWindow(f, name, size).at(dataStart, frameHeader)
			if err != nil || len(b) < frameHeader {
				return err
			}
			if _, ok := newSealer(h.id).decode(b, dataStart); ok {
				last = numbers[i]
			}
			return nil
		})
		if err != nil && !errors.Is(err, commitlog.ErrCorrupt) {
			return 0, err
		}
	}
	return last, nil
}
