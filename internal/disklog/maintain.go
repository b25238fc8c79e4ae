package disklog

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/vfs"
)

// heavyRate is a rate of appends, in bytes a second. Above it no zeros are written ahead, because
// the appends need the disk.
const heavyRate = 8 << 20

// keeper is the state of maintenance. It belongs to one goroutine: the maintenance loop, or
// the caller of a Stepped log.
type keeper struct {
	state      state
	stateFile  vfs.File
	reserve    int64         // size of the reserve file; 0: there is none
	spares     []string      // trimmed segment files to write over
	nextSize   int64         // size of the next segment to create
	dead       []*segment    // trimmed segments that are still being read
	generation atomic.Uint64 // generation of state on disk, for the scrub

	rest rest

	since atomic.Int64 // when the active segment became active, in nanoseconds
	rate  atomic.Int64 // bytes a second at which the previous segment was filled
}

func (k *keeper) closeFile() error {
	if k.stateFile == nil {
		return nil
	}
	f := k.stateFile
	k.stateFile = nil
	return f.Close()
}

// rolled records how fast a segment was filled. The writer calls it.
func (k *keeper) rolled(now time.Time, bytes int64) {
	then := time.Unix(0, k.since.Swap(now.UnixNano()))
	k.rate.Store(int64(float64(bytes) / since(now, then).Seconds()))
}

// wake wakes maintenance.
func (l *Log) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// maintainLoop is maintenance on a goroutine.
func (l *Log) maintainLoop() {
	timer := l.o.Clock.NewTimer(retryFull)
	defer timer.Stop()
	timer.Stop()
	l.wake()
	for {
		select {
		case <-l.stop:
			return
		case <-l.kick:
		case <-timer.C():
		}
		if l.maintain() {
			timer.Reset(retryFull)
		}
	}
}

// maintain frees trimmed segments. It prepares the next segment and then the reserve, if they are
// missing. In a log at rest (see rest.go) it frees space that was kept for growth. It returns true
// if it must be called again after retryFull.
func (l *Log) maintain() (again bool) {
	l.mu.Lock()
	failed := l.err != nil
	l.mu.Unlock()
	if failed {
		return false
	}
	if err := l.checkPlace(); err != nil {
		l.fail(err)
		return false
	}
	resting := l.lookAtRest()
	if err := l.freeTrimmed(); err != nil {
		l.fail(err)
		return false
	}
	for l.short.Swap(false) && len(l.keeper.spares) > 0 {
		if err := l.dropSpare(); err != nil {
			l.fail(err)
			return false
		}
		l.short.Store(len(l.keeper.spares) > 0)
	}
	if resting {
		if err := l.giveBack(); err != nil {
			l.fail(err)
			return false
		}
	}
	roomErr, err := l.prepareNext()
	if err == nil && roomErr == nil {
		roomErr, err = l.prepareReserve()
	}
	if err != nil {
		l.fail(err)
		return false
	}
	l.ahead.Store(int64(len(l.keeper.spares))*l.o.SegmentBytes + l.keeper.reserve)
	l.reserved.Store(l.keeper.reserve)
	l.setFull(roomErr)
	return roomErr != nil || !resting
}

// setFull calls OnFull when room runs out and when there is room again. cause is nil when there is
// room.
func (l *Log) setFull(cause error) {
	full := cause != nil
	l.mu.Lock()
	changed := l.full != full
	l.full = full
	l.mu.Unlock()
	switch {
	case changed && full:
		l.o.Logger.Warn("the disk is full: no room for the next segment; stop publishing, and free space", "dir", l.o.Dir, "error", cause)
		l.o.OnEvent(Event{Kind: "full"})
		l.o.OnFull(true)
	case changed:
		l.o.Logger.Info("there is room on the disk again", "dir", l.o.Dir)
		l.o.OnEvent(Event{Kind: "roomy"})
		l.o.OnFull(false)
	}
}

// noRoom reports whether an error left the log unchanged and is passing: a full disk, or no file
// descriptors or memory.
func noRoom(err error) bool { return vfs.IsNoSpace(err) || vfs.IsShortage(err) }

// prepareNext creates the next segment if it is missing or too small for the writer. roomErr is a
// passing error.
func (l *Log) prepareNext() (roomErr, err error) {
	l.mu.Lock()
	need, have := l.needSize, l.next
	number := l.lastNumber() + 1
	l.mu.Unlock()
	if have != nil && have.seg.size >= need {
		return nil, nil
	}
	if have != nil { // a larger segment with the same number replaces it
		l.mu.Lock()
		l.next = nil
		l.mu.Unlock()
		if err := l.dropNext(have); err != nil {
			return nil, err
		}
	}
	k := &l.keeper
	seg, err := l.makeNext(number, need, max(need, k.nextSize))
	if err != nil && noRoom(err) {
		roomErr = err
		if need == 0 {
			return roomErr, nil
		}
		if seg, err = l.useReserve(number, need); seg == nil && err == nil {
			seg, err = l.makeForAcks(number, need)
		}
		if seg == nil {
			return roomErr, err
		}
	}
	if err != nil {
		return nil, err
	}
	k.nextSize = min(max(k.nextSize, growth*seg.size), l.o.SegmentBytes)
	return roomErr, l.offerNext(seg)
}

// lastNumber returns the active segment's number.
func (l *Log) lastNumber() uint64 {
	l.segMu.RLock()
	defer l.segMu.RUnlock()
	return l.segs[len(l.segs)-1].header.number
}

// makeNext converts a spare to a segment, or else creates one. If there is no room for its size, it
// creates a smaller one.
func (l *Log) makeNext(number uint64, need, size int64) (*segment, error) {
	for {
		seg, err := l.makeSegment(number, size)
		if err == nil || !noRoom(err) || size <= max(need, l.o.FirstBytes) {
			return seg, err
		}
		size = max(pageEnd(size/growth), need, l.o.FirstBytes)
	}
}

func (l *Log) makeSegment(number uint64, size int64) (*segment, error) {
	k := &l.keeper
	if n := len(k.spares); n > 0 && size <= l.o.SegmentBytes {
		spare := k.spares[n-1]
		seg, err := l.files.convert(spare, number, nil)
		if err == nil {
			k.spares = k.spares[:n-1]
			l.o.OnEvent(Event{Kind: "recycled", Segment: number})
		}
		return seg, err
	}
	if err := l.checkFree(size); err != nil {
		return nil, err
	}
	return l.files.create(number, size, l.zeroAhead(size), nil)
}

// checkFree returns an error if a file of size bytes would use free space that must be kept.
func (l *Log) checkFree(size int64) error { return l.leaves(size, max(l.o.MinFree, 0)+l.keep.Load()) }

// leaves returns an error if a file of size bytes would leave less than least bytes free.
func (l *Log) leaves(size, least int64) error {
	if least == 0 {
		return nil
	}
	free, err := l.fs.Free(l.o.Dir)
	if err != nil {
		return err
	}
	if free-size < least {
		return wrap(surgetank.CodeFull, fmt.Sprintf("%s has %d bytes free; a segment of %d would leave less than the %d that are kept free", l.o.Dir, free, size, least), syscall.ENOSPC)
	}
	return nil
}

// useReserve converts the reserve to the next segment, which needs no further space on the disk.
func (l *Log) useReserve(number uint64, need int64) (*segment, error) {
	k := &l.keeper
	if need > k.reserve {
		return nil, nil
	}
	seg, err := l.files.convert(l.files.path(reserveName), number, nil)
	if err != nil {
		if noRoom(err) {
			return nil, nil
		}
		return nil, err
	}
	k.reserve = 0
	l.o.Logger.Warn("writing into the reserve, which is for acks", "dir", l.o.Dir)
	return seg, nil
}

// makeForAcks creates the smallest segment for the writer's next entry, in the space that is
// otherwise kept free. On a full disk publishes are refused, so the entry most likely contains
// acks. The space for a snapshot stays free, because only a snapshot can free more.
func (l *Log) makeForAcks(number uint64, need int64) (*segment, error) {
	size := max(need, l.o.FirstBytes)
	if err := l.leaves(size, l.keep.Load()); err != nil {
		return nil, passing(err)
	}
	seg, err := l.files.create(number, size, nil, nil)
	if err != nil && noRoom(err) {
		return nil, nil
	}
	return seg, err
}

// reserveSize returns the size that the reserve should have: more for a log with larger segments.
func (l *Log) reserveSize() int64 {
	if l.resting.Load() {
		return l.o.FirstBytes
	}
	return min(reserveBytes, max(l.keeper.nextSize, l.o.FirstBytes), l.o.SegmentBytes)
}

// prepareReserve creates the reserve file if it is missing or too small. If there is no other
// space, it uses that of a spare.
func (l *Log) prepareReserve() (roomErr, err error) {
	k := &l.keeper
	if k.reserve >= l.reserveSize() {
		return nil, nil
	}
	for {
		err := l.makeReserve()
		switch {
		case err == nil:
			k.reserve = l.reserveSize()
			l.o.OnEvent(Event{Kind: "reserved"})
			return nil, nil
		case !noRoom(err):
			return nil, err
		case len(k.spares) == 0:
			if k.reserve > 0 { // the reserve file is too small
				return nil, nil
			}
			return err, nil
		}
		if err := l.dropSpare(); err != nil {
			return nil, err
		}
	}
}

func (l *Log) makeReserve() error {
	size := l.reserveSize()
	if err := l.checkFree(size); err != nil {
		return err
	}
	name := l.files.path(reserveName)
	f, err := createAnew(l.fs, name+tmpExt)
	if err != nil {
		return err
	}
	err = f.Preallocate(size)
	if fill := l.zeroAhead(size); err == nil && fill != nil {
		err = fill(f)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return errorsJoin(err, l.fs.Remove(name+tmpExt))
	}
	return l.files.publish(name+tmpExt, name)
}

// zeroAhead returns a function that writes zeros into a new segment. Writing frames over zeros
// costs a third less than writing into space that was only reserved. zeroAhead returns nil under
// heavy load. The returned function stops when heavy load begins.
func (l *Log) zeroAhead(size int64) func(vfs.File) error {
	if !l.runner.zeros() || l.heavy() || size > l.o.SegmentBytes {
		return nil
	}
	return func(f vfs.File) error {
		chunk := make([]byte, min(1<<20, size))
		for pos := int64(0); pos < size; pos += int64(len(chunk)) {
			if l.heavy() || l.stopping() {
				return nil
			}
			if _, err := f.WriteAt(chunk[:min(int64(len(chunk)), size-pos)], pos); err != nil {
				return err
			}
			if pos%(8<<20) == 7<<20 { // sync in steps, so that the log's own syncs do not wait for all the zeros
				if err := f.Sync(); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func (l *Log) stopping() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// heavy reports whether other writes must wait: appends are fast, or the next segment is needed
// soon.
func (l *Log) heavy() bool {
	l.mu.Lock()
	waiting := l.blocked || l.needSize > 0
	l.mu.Unlock()
	if waiting {
		return true
	}
	now := l.o.Clock.Now()
	then := time.Unix(0, l.keeper.since.Load())
	l.segMu.RLock()
	active := l.segs[len(l.segs)-1]
	bytes := active.end - dataStart
	l.segMu.RUnlock()
	elapsed := since(now, then)
	if bytes < 1<<20 && elapsed < time.Second {
		return l.keeper.rate.Load() > heavyRate // too early to measure: assume the previous rate
	}
	return float64(bytes)/elapsed.Seconds() > heavyRate
}

// createAnew creates a file. It replaces an unfinished file of the same name.
func createAnew(fs vfs.FS, name string) (vfs.File, error) {
	f, err := fs.Open(name, vfs.Create)
	if isExist(err) {
		if err := fs.Remove(name); err != nil {
			return nil, err
		}
		f, err = fs.Open(name, vfs.Create)
	}
	return f, err
}

// errorsJoin joins errors. It returns a single error unchanged.
func errorsJoin(errs ...error) error {
	var found []error
	for _, err := range errs {
		if err != nil {
			found = append(found, err)
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	return errors.Join(found...)
}
