package disklog

import (
	"errors"
	"hash/crc32"
	"io"

	"github.com/surgetank/surgetank/internal/mutant"
	"github.com/surgetank/surgetank/internal/vfs"
)

// window reads a file forward through a buffer that is fixed in size whatever the file says of
// itself.
type window struct {
	file vfs.File
	name string
	size int64
	buf  []byte
	off  int64 // position of buf[0]
	n    int   // bytes of buf that are filled
}

const windowSize = 1 << 20

func newWindow(f vfs.File, name string, size int64) *window {
	return &window{file: f, name: name, size: size, buf: make([]byte, min(windowSize, max(size, frameHeader)))}
}

// at gives the bytes from pos on, at least n and as many as there are at hand; fewer than n at the
// end of the file. They are valid until the next call. n is at most the size of the window.
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

// entrySum gives the checksum of an entry's bytes, read in portions.
func (w *window) entrySum(sum uint32, pos int64, length int) (uint32, error) {
	for length > 0 {
		b, err := w.at(pos, 1)
		if err != nil {
			return 0, err
		}
		if len(b) == 0 {
			return ^sum, nil // beyond the file's end: cannot be the right one
		}
		b = b[:min(len(b), length)]
		sum = crc32.Update(sum, castagnoli, b)
		pos += int64(len(b))
		length -= len(b)
	}
	return sum, nil
}

// scanned is what reading every frame of a segment found.
type scanned struct {
	first  uint64   // number of the first entry; 0 if there is none
	index  []uint32 // positions of the whole frames, in units of alignment
	end    int64    // position behind the last whole frame
	synced int64    // the highest position that any frame of this life, wherever it lies, knows to have been synced
	marked bool     // a mark lies at end
	beyond int      // frame headers of this life found behind end
	reason string   // what is wrong at end, where a frame begins there and is not whole
}

// damaged tells whether frames that were synced are missing: a torn tail lies behind what was
// synced, damage before it.
func (s *scanned) damaged() bool { return s.synced > s.end }

// clean tells whether everything found is known to be on the medium, and nothing behind it could be
// taken for a frame one day; only then may writing go on in the same segment.
func (s *scanned) clean() bool { return s.synced == s.end && s.beyond == 0 && s.reason == "" }

// scanSegment reads a segment frame by frame from its start. visit, when not nil, is called for
// each whole entry. The error is one of reading; what the bytes say is in the result. The entries'
// numbers follow each other.
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
				s.reason = "a mark that does not fit its place"
			}
			break
		}
		if s.first != 0 && fr.number != s.first+uint64(len(s.index)) || fr.number == 0 {
			s.reason = "an entry of the wrong number"
			break
		}
		next := s.end + frameSize(fr.length)
		if next > size {
			s.reason = "an entry that reaches behind the end of the file"
			break
		}
		sum, err := w.entrySum(seal.entryBase(s.end, fr.number), s.end+frameHeader, fr.length)
		if err != nil {
			return nil, err
		}
		if sum != fr.sum && !mutant.Is(mutant.ChecksumIgnored) {
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

// search looks behind the end for frames of this life. Their checksums cover the segment's random
// id, so neither old frames of a recycled file nor bytes that somebody published can pass for one.
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
