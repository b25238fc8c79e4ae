//go:build linux

package powerfs

import (
	"sync"
	"syscall"
)

// Kind of an operation that changes the disk or syncs it.
type Kind string

// The kinds a Fault is asked about.
const (
	Write    Kind = "write"
	Size     Kind = "size"     // truncate and fallocate
	Name     Kind = "name"     // create, mkdir, rename, unlink, rmdir
	Sync     Kind = "sync"     // fsync and fdatasync of a file
	SyncName Kind = "syncname" // fsync of a directory
)

// Op is an operation that a Fault is asked about.
type Op struct {
	Kind Kind
	Data []byte // of a write; not to be kept or changed
}

// Outcome is what a Fault makes of an operation. The zero value lets it be carried out.
type Outcome struct {
	// Err is returned instead of carrying the operation out. A sync that fails so leaves the file
	// as Linux does: what had been written is still read back, counts as clean, and no later sync
	// brings it to the disk.
	Err syscall.Errno
	// Short, if above 0, is how many bytes at most a write takes.
	Short int
	// Lie lets a sync succeed and do nothing.
	Lie bool
}

// Fault is asked before every operation that changes or syncs. It may wait, and be called by
// several goroutines at once.
type Fault func(Op) Outcome

// Disk is a file system in memory that knows which part of it would survive. Its methods may be
// called by any goroutine.
type Disk struct {
	mu      sync.Mutex
	root    *node
	nodes   uint64 // inode numbers given so far
	steps   int64  // operations carried out
	names   []nameChange
	fault   Fault
	armed   int64 // operations until the power is cut; 0: not armed
	off     chan struct{}
	dead    bool // the power is off
	release chan struct{}
	freed   sync.Once
}

// node is a file or a directory. live is what programs see; kept is what is on the disk. Guarded by
// the disk's mutex.
type node struct {
	number uint64
	mode   uint32 // with the type

	live, kept content
	pending    []change // since the last sync, oldest first

	entries, keptEntries map[string]*node // of a directory; nil in a file
}

func (n *node) dir() bool { return n.entries != nil }

// change is a change of a file that no sync has covered: bytes at an offset, or, without bytes, a
// new size.
type change struct {
	step  int64
	off   int64 // or the new size
	data  []byte
	grows bool // a size that was reserved with fallocate: it never makes a file shorter
}

// nameChange is a change of directories that no sync has covered: the node gets the name to, loses
// the name from, or both.
type nameChange struct {
	step     int64
	node     *node
	from, to *node // directories; nil: there is none
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

// SetFault sets what decides about operations from now on; nil: all are carried out.
func (d *Disk) SetFault(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

// CutAfter cuts the power at the n-th operation from now (at least the first), before it does
// anything.
func (d *Disk) CutAfter(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = max(1, n)
}

// Off is closed when the power has been cut.
func (d *Disk) Off() <-chan struct{} { return d.off }

// CutNow cuts the power: nothing changes any more, and whoever calls, waits.
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

// Release lets the callers that wait since the power was cut go, with EIO, so that their process,
// killed before, can end.
func (d *Disk) Release() { d.freed.Do(func() { close(d.release) }) }

// Steps tells how many operations were carried out that changed or synced something.
func (d *Disk) Steps() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.steps
}

// begin asks the fault about an operation and, when it is to be carried out, returns with the mutex
// held.
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

// powered takes the mutex, or waits for the end when the power is off.
func (d *Disk) powered() syscall.Errno {
	d.mu.Lock()
	if d.dead {
		d.mu.Unlock()
		<-d.release
		return syscall.EIO
	}
	return 0
}
