package disklog

import (
	"errors"
	"fmt"
	"slices"

	"github.com/surgetank/surgetank/internal/vfs"
)

// copyTail copies the entries that are possibly not on the medium into a new segment and syncs it.
// Then it ends the old segment before these entries. The new segment gets its name when it is
// complete, and replaces an empty segment of that name. So a crash leaves either the old tail or
// the copy.
func (l *Log) copyTail(s *segment, found *scanned) (*segment, error) {
	n, _ := slices.BinarySearch(found.index, uint32(found.synced/alignment))
	keep := n
	if keep < len(s.index) && int64(s.index[keep])*alignment != found.synced || keep == len(s.index) && found.synced != found.end {
		return nil, damaged(s.name, found.synced, "the file was synced up to here, and no entry begins here")
	}
	if found.reason != "" || found.beyond > 0 {
		l.o.Logger.Warn("cut an unfinished write off the end of the log: it was not synced when the machine or process stopped, so it was never confirmed",
			"file", s.name, "offset", found.end, "reason", found.reason, "pieces", found.beyond)
		l.o.OnEvent(Event{Kind: "cut", Segment: s.header.number, Detail: fmt.Sprintf("at %d", found.end)})
	}
	doubtful := s.index[keep:]
	least := pageEnd(dataStart + found.end - found.synced + indexSize(len(doubtful)+1) + pageSize)
	size := max(min(max(s.size, l.o.FirstBytes), l.o.SegmentBytes), least)
	copyFrames := func(f vfs.File, seal sealer) (int64, error) { return l.copyFrames(s, s.first+uint64(keep), f, seal) }
	number := s.header.number + 1
	fresh, err := l.files.create(number, size, nil, copyFrames)
	if err != nil && noRoom(err) { // on a full disk, make the smallest segment or use the reserve
		fresh, err = l.files.create(number, least, nil, copyFrames)
	}
	if err != nil && noRoom(err) && least <= l.keeper.reserve {
		l.keeper.reserve = 0
		fresh, err = l.files.convert(l.files.path(reserveName), number, copyFrames)
	}
	if err != nil {
		return nil, err
	}
	l.o.OnEvent(Event{Kind: "rescued", Segment: number, Detail: fmt.Sprintf("%d entries", len(doubtful))})
	fresh.first = s.first + uint64(keep)
	pos := int64(dataStart)
	for i := range doubtful {
		from, to := s.place(fresh.first + uint64(i))
		fresh.index = append(fresh.index, uint32(pos/alignment))
		pos += to - from
	}
	fresh.end = pos
	s.index, s.end = s.index[:keep], found.synced
	return fresh, l.sealEarly(s)
}

// copyFrames copies entries of a segment into another file as frames. The first is the entry with
// the number from.
func (l *Log) copyFrames(s *segment, from uint64, out vfs.File, seal sealer) (int64, error) {
	in, err := l.handles.acquire(s)
	if err != nil {
		return 0, err
	}
	defer l.handles.release(s)
	pos := int64(dataStart)
	for number := from; number < s.next(); number++ {
		at, to := s.place(number)
		b := make([]byte, to-at)
		if err := readFull(in, s.name, b, at); err != nil {
			return 0, err
		}
		data, err := s.checkFrame(b, at, number)
		kind := uint32(frameEntry)
		if errors.Is(err, errLost) {
			kind = frameLost
		} else if err != nil {
			return 0, err
		}
		var header [frameHeader]byte
		seal.put(header[:], kind, pos, number, dataStart, data)
		if _, err := out.WriteVec([][]byte{header[:], b[frameHeader:]}, pos); err != nil {
			return 0, err
		}
		pos += to - at
	}
	return pos, nil
}

// sealEarly ends a segment before its file is full, while the log is being opened.
func (l *Log) sealEarly(s *segment) error {
	f, err := l.fs.Open(s.name, vfs.ReadWrite)
	if err != nil {
		return err
	}
	size, err := l.cutBehind(f, s)
	s.size, s.sealed, s.indexed = size, true, true
	return errorsJoin(err, f.Close())
}

// cutBehind writes a segment's index directly after its entries. Then it cuts the file there and
// returns the new size. Until the file is cut, the index has no effect, because an index is only
// valid at the end of the file.
func (l *Log) cutBehind(f vfs.File, s *segment) (size int64, err error) {
	size = s.end + indexSize(len(s.index))
	b := s.seal.encodeIndex(s.header.id, footer{first: s.first, count: len(s.index), end: s.end}, s.index, size)
	_, err = f.WriteAt(b, s.end)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = f.Sync()
	}
	return size, err
}
