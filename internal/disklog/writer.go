package disklog

import (
	"fmt"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// copyLimit is the size up to which an entry is copied into the writer's buffer. Larger entries are
// written from their own memory.
const copyLimit = 4 << 10

// scratchKeep limits the buffer that the writer keeps between batches.
const scratchKeep = 4 << 20

// zeros pads writes to the end of their page.
var zeros [pageSize]byte

// writer is the state of the log writer. Only the goroutine that set Log.running uses it.
type writer struct {
	active *segment
	out    vfs.File
	pos    int64 // position of the next frame
	synced int64 // bytes before this position were synced
	marked bool  // a mark is at pos
	count  int   // frames in the active segment, durable or not

	scratch []byte
	bufs    [][]byte
	places  []uint32
}

func (w *writer) closeFile() error {
	if w.out == nil {
		return nil
	}
	f := w.out
	w.out = nil
	return f.Close()
}

// ready is a segment that will become the active one, with its file open for writing.
type ready struct {
	seg *segment
	out vfs.File
}

// turn stores all appended entries. When there is nothing to do, it sets running to false and
// returns false. The caller calls it until it returns false.
func (l *Log) turn() bool {
	l.mu.Lock()
	if len(l.queue) == 0 && l.early && l.next != nil && l.err == nil {
		l.early = false
		l.mu.Unlock()
		if err := l.endEarly(); err != nil {
			l.fail(err)
		}
		return true
	}
	if len(l.queue) == 0 || l.blocked {
		if w := &l.writer; l.err == nil && !w.marked && !l.blocked {
			l.mu.Unlock()
			if err := l.writeMark(); err != nil {
				l.fail(err)
			}
			l.mu.Lock()
			if len(l.queue) > 0 {
				l.mu.Unlock()
				return true
			}
		}
		l.running = false
		l.idle.Broadcast()
		l.mu.Unlock()
		return false
	}
	batch, err := l.queue, l.err
	l.queue, l.spare = l.spare[:0], nil
	l.mu.Unlock()

	if err != nil {
		refuse(batch, err)
	} else {
		l.store(batch)
	}
	clear(batch)
	l.mu.Lock()
	if l.spare == nil && cap(batch) <= 1<<16 {
		l.spare = batch[:0]
	}
	l.mu.Unlock()
	return true
}

func refuse(batch []pending, err error) {
	for _, p := range batch {
		p.done(0, err)
	}
}

// store writes a batch, segment by segment, and calls back. Entries without room are put back at
// the front of the queue.
func (l *Log) store(batch []pending) {
	w := &l.writer
	for len(batch) > 0 {
		n := w.fit(batch)
		roll := n < len(batch)
		if roll {
			p := batch[n]
			if len(p.data) > commitlog.MaxEntry {
				roll = false
				if n == 0 {
					err := wrap(surgetank.CodeTooLarge, fmt.Sprintf("an entry of %d bytes is above the limit of %d", len(p.data), commitlog.MaxEntry), commitlog.ErrFailed)
					l.fail(err)
					refuse(batch, err)
					return
				}
			} else if roll = l.haveNext(soleSize(len(p.data))); !roll && n == 0 {
				l.putBack(batch)
				return
			}
		}
		if err := l.write(batch[:n], roll); err != nil {
			l.fail(err)
			refuse(batch[:n], failed(err, true))
			refuse(batch[n:], failed(err, false))
			return
		}
		l.confirm(batch[:n])
		if roll {
			if err := l.roll(); err != nil {
				l.fail(err)
				refuse(batch[n:], failed(err, false))
				return
			}
		}
		batch = batch[n:]
	}
}

// soleSize returns the size of a segment for one entry of n bytes.
func soleSize(n int) int64 { return pageEnd(dataStart + frameSize(n) + indexSize(1)) }

// fit returns how many entries of a batch fit into the active segment, so that its index and footer
// still fit.
func (w *writer) fit(batch []pending) int {
	end := w.pos
	for i, p := range batch {
		end += frameSize(len(p.data))
		if len(p.data) > commitlog.MaxEntry || end+indexSize(w.count+i+1) > w.active.size {
			return i
		}
	}
	return len(batch)
}

// write writes entries into the active segment as frames, and syncs. If the segment is to be
// sealed, it also writes the index and footer.
func (l *Log) write(batch []pending, seal bool) error {
	w := &l.writer
	need := 0
	for _, p := range batch {
		need += frameHeader + alignment
		if len(p.data) <= copyLimit {
			need += len(p.data)
		}
	}
	if cap(w.scratch) < need {
		w.scratch = make([]byte, 0, need)
	}
	buf, from := w.scratch[:0], 0 // buf never grows beyond its capacity, so slices of it stay valid
	w.bufs, w.places = w.bufs[:0], w.places[:0]
	number, pos := w.active.first+uint64(w.count), w.pos
	for _, p := range batch {
		at := len(buf)
		buf = buf[:at+frameHeader]
		w.active.seal.put(buf[at:], p.kind(), pos, number, w.synced, p.data)
		if len(p.data) <= copyLimit {
			buf = append(buf, p.data...)
		} else {
			w.bufs = append(w.bufs, buf[from:], p.data)
			from = len(buf)
		}
		size := frameSize(len(p.data))
		buf = append(buf, zeros[:size-frameHeader-int64(len(p.data))]...)
		w.places = append(w.places, uint32(pos/alignment))
		pos += size
		number++
	}
	w.bufs = append(w.bufs, buf[from:])
	limit := w.active.size
	if seal {
		limit -= indexSize(w.count + len(batch))
	}
	w.bufs = append(w.bufs, zeros[:min(pageEnd(pos), limit)-pos])
	if len(batch) > 0 {
		if _, err := w.out.WriteVec(w.bufs, w.pos); err != nil {
			return err
		}
	}
	if seal {
		if err := l.checkActive(); err != nil { // writing at its end would restore the size of a file that was cut
			return err
		}
		index := append(append(make([]uint32, 0, w.count+len(batch)), w.active.index...), w.places...)
		b := w.active.seal.encodeIndex(w.active.header.id, footer{first: w.active.first, count: len(index), end: pos}, index, w.active.size)
		if _, err := w.out.WriteAt(b, w.active.size-int64(len(b))); err != nil {
			return err
		}
	}
	start := l.o.Clock.Now()
	if err := w.out.Sync(); err != nil {
		return err
	}
	l.stats.synced(l.o.Clock.Now().Sub(start), pos-w.pos)
	if err := l.checkActive(); err != nil {
		return err
	}
	w.pos, w.synced, w.marked = pos, pos, false
	w.count += len(batch)
	clear(w.bufs)
	if cap(w.scratch) > scratchKeep {
		w.scratch = nil
	}
	return nil
}

// confirm makes durable entries visible to readers, and calls back.
func (l *Log) confirm(batch []pending) {
	w := &l.writer
	l.segMu.Lock()
	first := w.active.next()
	w.active.index = append(w.active.index, w.places...)
	w.active.end = w.pos
	l.segMu.Unlock()
	l.recent.add(first, batch)
	l.durable.Store(first + uint64(len(batch)) - 1)
	for i, p := range batch {
		p.done(commitlog.Offset(first)+commitlog.Offset(i), nil)
	}
}

// haveNext reports whether a next segment of at least size bytes is ready. If not, it requests one
// from maintenance.
func (l *Log) haveNext(size int64) bool {
	l.needNext(size)
	l.runner.wantNext(l)
	return l.needNext(size)
}

func (l *Log) needNext(size int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next != nil && l.next.seg.size >= size {
		l.needSize = 0
		return true
	}
	l.needSize = size
	l.wake()
	return false
}

// putBack puts entries without room back into the queue. The writer stops until maintenance has
// made room.
func (l *Log) putBack(batch []pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(append(make([]pending, 0, len(batch)+len(l.queue)), batch...), l.queue...)
	if l.err == nil && !(l.next != nil && l.next.seg.size >= l.needSize) {
		l.blocked = true
	}
	l.wake()
}

// roll makes the next segment the active one. The old one is sealed and synced.
func (l *Log) roll() error {
	w := &l.writer
	if err := w.closeFile(); err != nil {
		return err
	}
	// The next segment becomes the last one in a single step. If l.next is empty, maintenance
	// creates the segment after the last one. So maintenance must always see this segment as the
	// next or the last.
	l.mu.Lock()
	l.segMu.Lock()
	next, old := l.next, w.active
	l.next = nil
	old.sealed, old.indexed = true, true
	l.early = false
	next.seg.first = old.next()
	l.segs = append(l.segs, next.seg)
	l.segMu.Unlock()
	l.mu.Unlock()
	l.o.OnEvent(Event{Kind: "sealed", Segment: old.header.number, Detail: fmt.Sprintf("%d entries", len(old.index))})
	l.keeper.rolled(l.o.Clock.Now(), old.size)
	w.active, w.out = next.seg, next.out
	w.pos, w.synced, w.marked, w.count = dataStart, dataStart, false, 0
	l.wake()
	return nil
}

// endEarly ends the active segment before it is full and continues in the next one. The file is cut
// after its index.
func (l *Log) endEarly() error {
	w := &l.writer
	if err := l.checkActive(); err != nil {
		return err
	}
	size, err := l.cutBehind(w.out, w.active)
	if err != nil {
		return err
	}
	l.segMu.Lock()
	w.active.size = size
	l.segMu.Unlock()
	l.o.OnEvent(Event{Kind: "ended", Segment: w.active.header.number, Detail: fmt.Sprintf("at %d", size)})
	return l.roll()
}

// writeMark writes a mark at pos: everything before pos was synced. The mark itself is not synced.
// The next entry overwrites it, so it costs no space. If no entry follows, the mark distinguishes a
// torn tail from damage.
func (l *Log) writeMark() error {
	w := &l.writer
	if w.out == nil || w.pos+frameHeader > w.active.size {
		w.marked = true
		return nil
	}
	b := append(make([]byte, frameHeader), zeros[:min(pageEnd(w.pos+frameHeader), w.active.size)-w.pos-frameHeader]...)
	w.active.seal.put(b, frameMark, w.pos, w.active.first+uint64(w.count), w.synced, nil)
	if _, err := w.out.WriteAt(b, w.pos); err != nil {
		return err
	}
	w.marked = true
	return nil
}

// finishMark makes the last mark durable, so that the next Open copies nothing.
func (l *Log) finishMark() error {
	w := &l.writer
	if w.out == nil {
		return nil
	}
	err := l.writeMark()
	if err == nil {
		err = w.out.Sync()
	}
	if err != nil {
		return failed(err, false)
	}
	return nil
}

// since returns the time that has passed, for rates. It returns at least a millisecond.
func since(now, then time.Time) time.Duration { return max(now.Sub(then), time.Millisecond) }
