//go:build linux

package powerfs

import (
	"sync"
	"syscall"
)

// Kind of an operation that changes the disk or syncs it.
type Kind string

// The kinds of operations for a Fault.
const (
	Write    Kind = "write"
	Size     Kind = "size"     // truncate and fallocate
	Name     Kind = "name"     // create, mkdir, rename, unlink, rmdir
	Sync     Kind = "sync"     // fsync and fdatasync of a file
	SyncName Kind = "syncname" // fsync of a directory
)

// Op is an operation passed to a Fault.
type Op struct {
	Kind Kind
	Data []byte // bytes of a write; do not keep or change them
}

// Outcome is a Fault's decision about an operation. The zero value lets the operation happen.
type Outcome struct {
	// If Err is set, the operation is not carried out and returns Err. A failed sync leaves the
	// file as on Linux: the written data can still be read and counts as clean, but no later sync
	// writes the data to the disk.
	Err syscall.Errno
	// Short, if above 0, is the most bytes that a write accepts.
	Short int
	// Lie makes a sync succeed without effect.
	Lie bool
}

// Fault is called before every operation that changes or syncs. It may wait, and must be safe for
// use by many goroutines.
type Fault func(Op) Outcome

// Disk is an in-memory file system that knows which of its data a power cut would lose. Its methods
// are safe for use by many goroutines.
type Disk struct {
	mu      sync.Mutex
	root    *node
	nodes   uint64 // inode numbers used so far
	steps   int64  // operations carried out
	names   []nameChange
	fault   Fault
	armed   int64 // operations until the power is cut; 0: not armed
	off     chan struct{}
	dead    bool // the power is off
	release chan struct{}
	freed   sync.Once
}

// node is a file or a directory. live is the state that programs see; kept is the state on the
// disk. The disk's mutex guards it.
type node struct {
	number uint64
	mode   uint32 // including the type

	live, kept content
	pending    []change // changes since the last sync, oldest first

	entries, keptEntries map[string]*node // names in a directory; nil in a file
}

func (n *node) dir() bool { return n.entries != nil }

// change is an unsynced change of a file: bytes at an offset, or, without bytes, a new size.
type change struct {
	step  int64
	off   int64 // offset, or the new size
	data  []byte
	grows bool // a size reserved with fallocate: it never shrinks a file
}

// nameChange is an unsynced change of directories: the node gets a name in directory to, loses a
// name in directory from, or both.
type nameChange struct {
	step     int64
	node     *node
	from, to *node // directories; nil: no name is lost or gained
	old, new string
}

// New makes an empty disk.
func New() *Disk {
	d := &Disk{off: make(chan struct{}), release: make(chan struct{})}
	d.root = d.newDir(0o700)
	return d
}

func (d *Disk) newDir(perm uint32) *node {
	d.nodes++
	return &node{number: d.nodes, mode: syscall.S_IFDIR | perm, entries: map[string]*node{}, keptEntries: map[string]*node{}}
}

func (d *Disk) newFile(perm uint32) *node {
	d.nodes++
	return &node{number: d.nodes, mode: syscall.S_IFREG | perm, live: newContent(), kept: newContent()}
}

// SetFault sets the function that decides about later operations; nil: all operations are carried
// out.
func (d *Disk) SetFault(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

// CutAfter cuts the power at the n-th operation from now (at least the first), before the operation
// has an effect.
func (d *Disk) CutAfter(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = max(1, n)
}

// Off is closed when the power has been cut.
func (d *Disk) Off() <-chan struct{} { return d.off }

// CutNow cuts the power: nothing changes any more, and callers wait.
func (d *Disk) CutNow() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut()
}

func (d *Disk) cut() {
	if !d.dead {
		d.dead = true
		close(d.off)
	}
}

// Release ends the wait of callers after the power cut with EIO, so that their killed process can
// end.
func (d *Disk) Release() { d.freed.Do(func() { close(d.release) }) }

// Steps returns how many operations changed or synced something.
func (d *Disk) Steps() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.steps
}

// begin calls the fault for an operation. If the operation must be carried out, begin returns with
// the mutex locked.
func (d *Disk) begin(op Op) (Outcome, syscall.Errno) {
	d.mu.Lock()
	fault := d.fault
	d.mu.Unlock()
	var o Outcome
	if fault != nil {
		o = fault(op)
	}
	if errno := d.powered(); errno != 0 {
		return o, errno
	}
	if d.armed > 0 {
		if d.armed--; d.armed == 0 {
			d.cut()
			d.mu.Unlock()
			<-d.release
			return o, syscall.EIO
		}
	}
	d.steps++
	return o, 0
}

// powered locks the mutex, or waits for Release if the power is off.
func (d *Disk) powered() syscall.Errno {
	d.mu.Lock()
	if d.dead {
		d.mu.Unlock()
		<-d.release
		return syscall.EIO
	}
	return 0
}
