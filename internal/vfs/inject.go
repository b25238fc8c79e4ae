package vfs

import "sync"

// Op is a kind of operation, or a set of kinds, for Inject.
type Op uint32

// The kinds of operations.
const (
	OpOpen Op = 1 << iota
	OpCreate
	OpRename
	OpRemove
	OpList
	OpMkdir
	OpSyncDir
	OpLock
	OpFree
	OpRead
	OpWrite
	OpSync
	OpPreallocate
	OpTruncate
	OpCheck
	OpClose

	// OpChange is every kind that changes stored data or makes it durable.
	OpChange = OpCreate | OpRename | OpRemove | OpMkdir | OpSyncDir | OpWrite | OpSync | OpPreallocate | OpTruncate
	// OpAny is every kind.
	OpAny = OpClose<<1 - 1
)

// Fault describes which operation fails and how.
type Fault struct {
	Ops Op  // the kinds of operations that are counted and can fail
	N   int // the number of the operation that fails; the first is 1
	// Forever makes every operation after the N-th fail, too.
	Forever bool
	Err     error
	// Short makes a failing write or read do half of its work first.
	Short bool
}

// Inject wraps a file system. It counts operations, makes chosen operations fail, and calls a hook
// after each operation. A Sync that fails on a Mem loses the unsynced bytes for good, as on Linux:
// another Sync succeeds, although the bytes are not on the medium.
type Inject struct {
	fs FS

	mu     sync.Mutex
	fault  Fault
	seen   int
	failed int
	hook   func(op Op, name string)
}

var _ FS = (*Inject)(nil)

// NewInject wraps a file system. No operation fails before SetFault.
func NewInject(fs FS) *Inject { return &Inject{fs: fs} }

// SetFault sets the fault and restarts the count. With the zero Fault no operation fails.
func (i *Inject) SetFault(f Fault) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fault, i.seen, i.failed = f, 0, 0
}

// Seen returns how many operations of the fault's kinds were called since SetFault.
func (i *Inject) Seen() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.seen
}

// Failed returns how many operations the fault made fail since SetFault.
func (i *Inject) Failed() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.failed
}

// SetHook sets a function that is called after every operation, failed or not. Set it before the
// file system is used.
func (i *Inject) SetHook(hook func(op Op, name string)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.hook = hook
}

// do runs an operation, or makes it fail. half does half of the operation's work, for Fault.Short.
func (i *Inject) do(op Op, name string, run func() error, half func()) error {
	i.mu.Lock()
	var err error
	short := false
	if i.fault.Ops&op != 0 {
		i.seen++
		if i.seen == i.fault.N || i.fault.Forever && i.seen > i.fault.N {
			i.failed++
			err, short = pathError("injected", name, i.fault.Err), i.fault.Short
		}
	}
	hook := i.hook
	i.mu.Unlock()
	switch {
	case err == nil:
		err = run()
	case short && half != nil:
		half()
	}
	if hook != nil {
		hook(op, name)
	}
	return err
}

// Open opens or creates a file. The file's operations are counted, too.
func (i *Inject) Open(name string, mode Mode) (File, error) {
	op := OpOpen
	if mode == Create {
		op = OpCreate
	}
	var f File
	err := i.do(op, name, func() (err error) { f, err = i.fs.Open(name, mode); return err }, nil)
	if err != nil {
		return nil, err
	}
	return &injectFile{i: i, f: f, name: name}, nil
}

// Rename renames a file.
func (i *Inject) Rename(from, to string) error {
	return i.do(OpRename, to, func() error { return i.fs.Rename(from, to) }, nil)
}

// Remove removes a file.
func (i *Inject) Remove(name string) error {
	return i.do(OpRemove, name, func() error { return i.fs.Remove(name) }, nil)
}

// List lists a directory.
func (i *Inject) List(dir string) (names []string, err error) {
	err = i.do(OpList, dir, func() (err error) { names, err = i.fs.List(dir); return err }, nil)
	return names, err
}

// Mkdir makes a directory.
func (i *Inject) Mkdir(dir string) error {
	return i.do(OpMkdir, dir, func() error { return i.fs.Mkdir(dir) }, nil)
}

// SyncDir syncs a directory.
func (i *Inject) SyncDir(dir string) error {
	return i.do(OpSyncDir, dir, func() error { return i.fs.SyncDir(dir) }, nil)
}

// Lock locks a directory.
func (i *Inject) Lock(name, owner string) (l Lock, err error) {
	err = i.do(OpLock, name, func() (err error) { l, err = i.fs.Lock(name, owner); return err }, nil)
	return l, err
}

// Free returns the free bytes.
func (i *Inject) Free(dir string) (n int64, err error) {
	err = i.do(OpFree, dir, func() (err error) { n, err = i.fs.Free(dir); return err }, nil)
	return n, err
}

// injectFile is a file of an Inject.
type injectFile struct {
	i    *Inject
	f    File
	name string
}

func (f *injectFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.i.do(OpRead, f.name,
		func() (err error) { n, err = f.f.ReadAt(p, off); return err },
		func() { n, _ = f.f.ReadAt(p[:len(p)/2], off) })
	return n, err
}

func (f *injectFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.i.do(OpWrite, f.name,
		func() (err error) { n, err = f.f.WriteAt(p, off); return err },
		func() { n, _ = f.f.WriteAt(p[:len(p)/2], off) })
	return n, err
}

func (f *injectFile) WriteVec(bufs [][]byte, off int64) (n int64, err error) {
	err = f.i.do(OpWrite, f.name,
		func() (err error) { n, err = f.f.WriteVec(bufs, off); return err },
		func() {
			var total int64
			for _, b := range bufs {
				total += int64(len(b))
			}
			for _, b := range bufs {
				part := b[:min(int64(len(b)), total/2-n)]
				k, err := f.f.WriteAt(part, off+n)
				n += int64(k)
				if err != nil || len(part) < len(b) {
					return
				}
			}
		})
	return n, err
}

func (f *injectFile) Sync() error {
	err := f.i.do(OpSync, f.name, f.f.Sync, nil)
	if m, ok := f.f.(*memFile); ok && err != nil {
		m.forget()
	}
	return err
}

func (f *injectFile) Preallocate(size int64) error {
	return f.i.do(OpPreallocate, f.name, func() error { return f.f.Preallocate(size) }, nil)
}

func (f *injectFile) Truncate(size int64) error {
	return f.i.do(OpTruncate, f.name, func() error { return f.f.Truncate(size) }, nil)
}

func (f *injectFile) Size() (int64, error) { return f.f.Size() }

func (f *injectFile) Check() (size int64, err error) {
	err = f.i.do(OpCheck, f.name, func() (err error) { size, err = f.f.Check(); return err }, nil)
	return size, err
}

// Close closes the file even if the fault makes Close return an error, as close(2) does.
func (f *injectFile) Close() error {
	closed := f.f.Close()
	return f.i.do(OpClose, f.name, func() error { return closed }, nil)
}
