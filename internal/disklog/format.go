package disklog

import (
	"encoding/binary"
	"hash/crc32"
	"strings"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/dataformat"
)

// The layout of the files. docs/format.md has drawings and reasons. All numbers are little-endian.
const (
	formatVersion = 1

	// pageSize is the size of pages in the page cache and of writes to the medium. The segment
	// header has a page of its own. Every write is padded with zeros to the end of its last page,
	// so that an old page of a recycled file is never read before it is written.
	pageSize = 4096

	segmentMagic = "SURGESEG"
	footerMagic  = "SURGEIDX"
	stateMagic   = "SURGELOG"
	snapMagic    = "SURGESNP"

	headerSize  = 128  // used bytes of a segment header
	dataStart   = 4096 // position of a segment's first frame
	frameHeader = 32
	footerSize  = 64
	stateSlot   = 4096 // the state file has two slots of this size
	stateUsed   = 128

	// A frame begins with its kind. A mark has no entry. A mark follows the last written frame and
	// says up to where the segment was synced. The next entry overwrites it. A lost frame is the
	// placeholder of an entry that repair could not read.
	frameEntry = 0x31456753 // "SgE1"
	frameMark  = 0x314d6753 // "SgM1"
	frameLost  = 0x314c6753 // "SgL1"

	// headerCopy is the position of a copy of the segment header, in another sector, for repair.
	headerCopy = 2048

	// alignment is the alignment of frames. The index stores positions in this unit, so that 4
	// bytes reach 32 GiB.
	alignment = 8
)

// id is a random id. A log has an id, so that a segment of another log is recognized. A segment
// file gets a new id each time it is reused, so that its old frames are recognized.
type id [16]byte

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// le is the byte order of all files.
var le = binary.LittleEndian

// align rounds a position up to the next possible start of a frame.
func align(n int64) int64 { return (n + alignment - 1) &^ (alignment - 1) }

// frameSize returns the size of the frame of an entry of n bytes.
func frameSize(n int) int64 { return align(frameHeader + int64(n)) }

// pageEnd rounds a position up to the end of its page.
func pageEnd(n int64) int64 { return (n + pageSize - 1) &^ (pageSize - 1) }

// indexSize returns the bytes of the index of n entries and the footer.
func indexSize(n int) int64 { return align(4*int64(n)) + footerSize }

// segmentHeader is the first block of a segment file. It is written and synced before the file gets
// its name.
type segmentHeader struct {
	log     id
	id      id     // random; new each time the file is reused
	number  uint64 // segments are numbered without gaps; the file's name contains the number, too
	size    int64  // size of the file when it got its name
	born    int64  // frames before this position were written and synced before the file got its name
	created int64  // seconds since 1970, for users
}

func (h *segmentHeader) encode() []byte {
	b := make([]byte, pageSize)
	copy(b, segmentMagic)
	le.PutUint32(b[8:], formatVersion)
	copy(b[16:], h.log[:])
	copy(b[32:], h.id[:])
	le.PutUint64(b[48:], h.number)
	le.PutUint64(b[56:], uint64(h.size))
	le.PutUint64(b[64:], uint64(h.born))
	le.PutUint64(b[72:], uint64(h.created))
	le.PutUint32(b[12:], blockSum(b[:headerSize]))
	copy(b[headerCopy:], b[:headerSize])
	return b
}

// blockSum returns the checksum of a block that stores it in the bytes 12 to 16.
func blockSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[16:])
}

// checkBlock checks a block that begins with a magic text, a version and a checksum. It returns a
// description of the damage, or "".
func checkBlock(b []byte, magic string) string {
	switch {
	case string(b[:8]) != magic:
		return "does not begin with the right magic text"
	case le.Uint32(b[12:]) != blockSum(b):
		return "has a wrong checksum"
	case le.Uint32(b[8:]) != formatVersion:
		return "has a format of another version"
	}
	return ""
}

func decodeSegmentHeader(b []byte) (h segmentHeader, wrong string) {
	if len(b) < headerSize {
		return h, "is cut short"
	}
	b = b[:headerSize]
	if wrong := checkBlock(b, segmentMagic); wrong != "" {
		return h, wrong
	}
	copy(h.log[:], b[16:])
	copy(h.id[:], b[32:])
	h.number = le.Uint64(b[48:])
	h.size = int64(le.Uint64(b[56:]))
	h.born = int64(le.Uint64(b[64:]))
	h.created = int64(le.Uint64(b[72:]))
	if h.number == 0 || h.size < dataStart || h.born < dataStart || h.born > h.size {
		return h, "holds impossible values"
	}
	return h, ""
}

// frame is the content of a frame's header.
type frame struct {
	kind   uint32
	length int    // length of the entry in bytes
	number uint64 // number of the entry; in a mark, of the entry that will overwrite the mark
	synced int64  // frames before this position of the segment were synced when this one was written
	sum    uint32 // checksum of the entry
}

// sealer computes and checks the checksums of a segment file with one id. Its value is the checksum
// of the id, from which every other checksum continues.
type sealer uint32

func newSealer(segment id) sealer { return sealer(crc32.Checksum(segment[:], castagnoli)) }

// headerSum covers the segment's id, the frame's position and the header without the checksum
// itself.
func (s sealer) headerSum(pos int64, header []byte) uint32 {
	var p [8]byte
	le.PutUint64(p[:], uint64(pos))
	sum := crc32.Update(uint32(s), castagnoli, p[:])
	return crc32.Update(sum, castagnoli, header[:28])
}

// entryBase returns the start of an entry's checksum. It covers the segment's id, the frame's
// position and the entry's number.
func (s sealer) entryBase(pos int64, number uint64) uint32 {
	var p [16]byte
	le.PutUint64(p[:], uint64(pos))
	le.PutUint64(p[8:], number)
	return crc32.Update(uint32(s), castagnoli, p[:])
}

// put writes a frame's header for an entry at pos. A mark has no data.
func (s sealer) put(b []byte, kind uint32, pos int64, number uint64, synced int64, data []byte) {
	le.PutUint32(b, kind)
	le.PutUint32(b[4:], uint32(len(data)))
	le.PutUint64(b[8:], number)
	le.PutUint64(b[16:], uint64(synced))
	le.PutUint32(b[24:], crc32.Update(s.entryBase(pos, number), castagnoli, data))
	le.PutUint32(b[28:], s.headerSum(pos, b))
}

// decode reads a frame's header at pos. ok means that the frame was written at pos, under the
// file's present id.
func (s sealer) decode(b []byte, pos int64) (f frame, ok bool) {
	f.kind = le.Uint32(b)
	if f.kind != frameEntry && f.kind != frameMark && f.kind != frameLost || le.Uint32(b[28:]) != s.headerSum(pos, b) {
		return f, false
	}
	f.length = int(le.Uint32(b[4:]))
	f.number = le.Uint64(b[8:])
	f.synced = int64(le.Uint64(b[16:]))
	f.sum = le.Uint32(b[24:])
	return f, f.length <= commitlog.MaxEntry && f.synced >= dataStart && f.synced <= pos && (f.kind == frameEntry || f.length == 0)
}

// footer ends a sealed segment, after the index of its frames. It is the last bytes of the file.
type footer struct {
	first uint64 // number of the first entry
	count int
	end   int64 // position after the last frame
}

// encodeIndex encodes the index and the footer of a file of size bytes. They are the last bytes of
// the file. The footer contains a copy of the segment's id, because frames cannot be recognized
// without the id if the header is lost.
func (s sealer) encodeIndex(segment id, f footer, index []uint32, size int64) []byte {
	b := make([]byte, indexSize(len(index)))
	for i, p := range index {
		le.PutUint32(b[4*i:], p)
	}
	t := b[len(b)-footerSize:]
	copy(t, footerMagic)
	le.PutUint32(t[8:], formatVersion)
	le.PutUint64(t[16:], f.first)
	le.PutUint64(t[24:], uint64(f.count))
	le.PutUint64(t[32:], uint64(f.end))
	le.PutUint32(t[40:], crc32.Update(uint32(s), castagnoli, b[:len(b)-footerSize]))
	copy(t[48:], segment[:])
	le.PutUint32(t[12:], s.footerSum(t, size))
	return b
}

// footerSum covers the segment's id, the file's size (and so the footer's position) and the footer
// without the checksum itself.
func (s sealer) footerSum(t []byte, size int64) uint32 {
	sum := s.entryBase(size, 0)
	sum = crc32.Update(sum, castagnoli, t[:12])
	return crc32.Update(sum, castagnoli, t[16:footerSize])
}

// decodeFooter decodes the footer from a file's last bytes. The caller must check the index's
// checksum.
func (s sealer) decodeFooter(t []byte, size int64) (f footer, indexSum uint32, ok bool) {
	if string(t[:8]) != footerMagic || le.Uint32(t[12:]) != s.footerSum(t, size) || le.Uint32(t[8:]) != formatVersion {
		return f, 0, false
	}
	count := le.Uint64(t[24:])
	f.first, f.end = le.Uint64(t[16:]), int64(le.Uint64(t[32:]))
	if count > uint64(size)/frameHeader || f.first == 0 || f.end < dataStart || f.end+indexSize(int(count)) > size {
		return f, 0, false
	}
	f.count = int(count)
	return f, le.Uint32(t[40:]), true
}

// state is the content of the state file. The file has two slots that are written in turn, so that
// one is always intact. It never grows, because trimming must work on a full disk.
type state struct {
	log        id
	generation uint64 // if both slots are intact, the one with the higher generation is valid
	oldest     uint64 // the number of the oldest segment that is not trimmed
	first      uint64 // the number of that segment's first entry

	// The segment endSegment was synced up to endSynced when the slot was written. Marks contain
	// the same. If the disk loses the newest pages with their marks after a clean stop, this copy
	// reveals the loss.
	endSegment uint64
	endSynced  int64

	// level is the format level of the newest build that opened the log. since is the oldest
	// version that can read that level. Level 0 means level 1, written before slots had a level.
	// encode writes the level of this build.
	level uint32
	since string

	other string // damage of the other slot, which was possibly newer; empty: none
}

// sinceSize is the space for the version in a slot.
const sinceSize = stateUsed - 76

// known returns the position up to which a segment is known to have been synced.
func (s *state) known(segment uint64) int64 {
	if s.endSegment == segment {
		return s.endSynced
	}
	return 0
}

func (s *state) encode() []byte {
	b := make([]byte, stateSlot)
	copy(b, stateMagic)
	le.PutUint32(b[8:], formatVersion)
	copy(b[16:], s.log[:])
	le.PutUint64(b[32:], s.generation)
	le.PutUint64(b[40:], s.oldest)
	le.PutUint64(b[48:], s.first)
	le.PutUint64(b[56:], s.endSegment)
	le.PutUint64(b[64:], uint64(s.endSynced))
	written := dataformat.Written()
	le.PutUint32(b[72:], written.Number)
	copy(b[76:76+sinceSize], written.Since)
	le.PutUint32(b[12:], blockSum(b[:stateUsed]))
	return b
}

func decodeState(b []byte) (s state, wrong string) {
	if len(b) < stateUsed {
		return s, "is cut short"
	}
	b = b[:stateUsed]
	if wrong := checkBlock(b, stateMagic); wrong != "" {
		return s, wrong
	}
	copy(s.log[:], b[16:])
	s.generation, s.oldest, s.first = le.Uint64(b[32:]), le.Uint64(b[40:]), le.Uint64(b[48:])
	s.endSegment, s.endSynced = le.Uint64(b[56:]), int64(le.Uint64(b[64:]))
	s.level = le.Uint32(b[72:])
	s.since = strings.TrimRight(string(b[76:76+sinceSize]), "\x00")
	if s.oldest == 0 || s.first == 0 || s.endSynced < 0 || strings.ContainsFunc(s.since, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return s, "holds impossible values"
	}
	return s, ""
}
