package disklog

import (
	"errors"
	"hash/crc32"
	"io"

	"github.com/surgetank/surgetank/internal/vfs"
)

// window reads a file forward through a buffer. The buffer's size does not depend on lengths in the
// file.
type window struct {
	file vfs.File
	name string
	size int64
	buf  []byte
	off  int64 // position of buf[0]
	n    int   // number of bytes in buf
}

const windowSize = 1 << 20

func newWindow(f vfs.File, name string, size int64) *window {
	return &window{file: f, name: name, size: size, buf: make([]byte, min(windowSize, max(size, frameHeader)))}
}

// at returns the buffered bytes from pos on: at least n, or fewer at the end of the file. The bytes
// are valid until the next call. n is at most the size of the window.
func (w *window) at(pos int64, n int) ([]byte, error) {
	if pos < w.off || pos+int64(n) > w.off+int64(w.n) {
		want := int(min(int64(len(w.buf)), max(w.size-pos, 0)))
		got, err := w.file.ReadAt(w.buf[:want], pos)
		if err != nil && !(errors.Is(err, io.EOF) && got == want) {
			if errors.Is(err, io.EOF) {
				return nil, damaged(w.name, pos+int64(got), "the file ends before its size of %d", w.size)
			}
			return nil, unreadable(w.name, pos, err)
		}
		w.off, w.n = pos, got
	}
	return w.buf[min(int(pos-w.off), w.n):w.n], nil
}

// entrySum reads an entry in parts and returns its checksum.
func (w *window) entrySum(sum uint32, pos int64, length int) (uint32, error) {
	for length > 0 {
		b, err := w.at(pos, 1)
		if err != nil {
			return 0, err
		}
		if len(b) == 0 {
			return ^sum, nil // the entry is longer than the file: return a checksum that cannot match
		}
		b = b[:min(len(b), length)]
		sum = crc32.Update(sum, castagnoli, b)
		pos += int64(len(b))
		length -= len(b)
	}
	return sum, nil
}

// scanned is the result of reading every frame of a segment.
type scanned struct {
	first  uint64   // number of the first entry; 0 if there is none
	index  []uint32 // positions of the intact frames, in units of alignment
	end    int64    // position after the last intact frame
	synced int64    // the highest synced position in any valid frame
	marked bool     // a mark is at end
	beyond int      // number of valid frame headers after end
	reason string   // damage of the frame at end; empty if no frame begins at end
}

// damaged reports whether synced frames are missing. Missing frames after the synced position are
// only a torn tail.
func (s *scanned) damaged() bool { return s.synced > s.end }

// clean reports whether writing may continue in the same segment: all frames are known to be on the
// medium, and no later bytes look like a frame.
func (s *scanned) clean() bool { return s.synced == s.end && s.beyond == 0 && s.reason == "" }

// scanSegment reads a segment frame by frame from its start. visit, if not nil, is called for each
// intact entry. It returns an error only if reading fails; damage is in the result. It accepts only
// consecutive entry numbers.
func scanSegment(f vfs.File, name string, h segmentHeader, size int64, visit func(pos int64, fr frame)) (*scanned, error) {
	s := &scanned{end: dataStart, synced: h.born}
	w := newWindow(f, name, size)
	seal := newSealer(h.id)
	for {
		b, err := w.at(s.end, frameHeader)
		if err != nil {
			return nil, err
		}
		if len(b) < frameHeader {
			break
		}
		fr, ok := seal.decode(b, s.end)
		if !ok {
			break
		}
		s.synced = max(s.synced, fr.synced)
		if fr.kind == frameMark {
			s.marked = true
			if fr.synced != s.end {
				s.reason = "a mark that does not fit its position"
			}
			break
		}
		if s.first != 0 && fr.number != s.first+uint64(len(s.index)) || fr.number == 0 {
			s.reason = "an entry of the wrong number"
			break
		}
		next := s.end + frameSize(fr.length)
		if next > size {
			s.reason = "an entry that reaches beyond the end of the file"
			break
		}
		sum, err := w.entrySum(seal.entryBase(s.end, fr.number), s.end+frameHeader, fr.length)
		if err != nil {
			return nil, err
		}
		if sum != fr.sum {
			s.reason = "an entry with a wrong checksum"
			break
		}
		if visit != nil {
			visit(s.end, fr)
		}
		if s.first == 0 {
			s.first = fr.number
		}
		s.index = append(s.index, uint32(s.end/alignment))
		s.end = next
	}
	return s, s.search(w, seal, size)
}

// search counts valid frames after the end. A frame's checksum covers the segment's random id, so
// old frames of a reused file and published bytes are not valid.
func (s *scanned) search(w *window, seal sealer, size int64) error {
	pos, err := nextMagic(w, s.end+alignment, size)
	for ; err == nil && pos < size; pos, err = nextMagic(w, pos+alignment, size) {
		b, err := w.at(pos, frameHeader)
		if err != nil {
			return err
		}
		if fr, ok := seal.decode(b, pos); ok {
			s.beyond++
			s.synced = max(s.synced, fr.synced)
		}
	}
	return err
}
