package vfs

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

const (
	// blockSize is the unit in which Mem stores files and counts space, as a page cache does.
	blockSize = 4096
	// sectorSize is the unit that a medium writes atomically. Mem loses data in sectors.
	sectorSize = 512
)

// Mem is a file system in memory. It records which bytes and names are durable. CrashClone returns
// the file system after a power failure. The zero value is not usable; call NewMem.
//
// Directories are durable at once. Files and names have only the guarantees of FS: a synced file
// whose name was not synced is lost.
type Mem struct {
	mu       sync.Mutex
	dirs     map[string]bool
	names    map[string]*memNode // the names that processes see
	durable  map[string]*memNode // the names on the medium
	pending  []nameOp            // the changes between names and durable, in order
	locks    map[string]string   // lock file → owner
	capacity int64               // bytes; 0: no limit
}

var _ FS = (*Mem)(nil)

// nameOp is a change of names that is not durable yet.
type nameOp struct {
	from string   // the old name; empty for a new file
	to   string   // the new name; empty for a removal
	node *memNode // the changed file
}

// apply makes the change in a map of names. It does nothing if the file does not have the old name
// in the map, because an earlier change was lost. It never changes another file that meanwhile has
// the old name.
func (op nameOp) apply(names map[string]*memNode) {
	if op.from != "" {
		if names[op.from] != op.node {
			return
		}
		delete(names, op.from)
	}
	if op.to != "" {
		names[op.to] = op.node
	}
}

// NewMem creates an empty file system with the root directories "/" and ".".
func NewMem() *Mem {
	return &Mem{
		dirs:    map[string]bool{"/": true, ".": true},
		names:   map[string]*memNode{},
		durable: map[string]*memNode{},
		locks:   map[string]string{},
	}
}

// SetCapacity limits the bytes of all files together, counted in blocks of 4 KiB. 0 means no limit.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes
}

// Used returns the bytes of all files, in whole blocks.
func (m *Mem) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used()
}

// used returns the space of all files. The caller holds mu.
func (m *Mem) used() int64 {
	var n int64
	for _, node := range m.names {
		n += int64(len(node.blocks)) * blockSize
	}
	return n
}

// Checksum is the same for two file systems with the same names and bytes.
func (m *Mem) Checksum() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := fnv.New64a()
	for _, name := range slices.Sorted(maps.Keys(m.names)) {
		node := m.names[name]
		fmt.Fprintf(h, "%q %d\n", name, node.size)
		for i := range node.blocks {
			b := blockAt(node.blocks, i)
			if b == nil {
				b = new(block)
			}
			_, _ = h.Write(b[:])
		}
	}
	return h.Sum64()
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// Open opens or creates a file.
func (m *Mem) Open(name string, mode Mode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	node := m.names[name]
	if m.dirs[name] {
		return nil, pathError("open", name, syscall.EISDIR)
	}
	if mode == Create {
		if node != nil {
			return nil, pathError("open", name, fs.ErrExist)
		}
		if !m.dirs[filepath.Dir(name)] {
			return nil, pathError("open", name, fs.ErrNotExist)
		}
		node = &memNode{dirty: map[int]struct{}{}}
		m.change(nameOp{to: name, node: node})
	}
	if node == nil {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	return &memFile{fs: m, node: node, name: name, writable: mode != Read}, nil
}

// change makes a change of names for processes and records that it is not durable.
func (m *Mem) change(op nameOp) {
	op.apply(m.names)
	m.pending = append(m.pending, op)
}

// Rename renames a file.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, to = filepath.Clean(from), filepath.Clean(to)
	if m.names[from] == nil || !m.dirs[filepath.Dir(to)] {
		return pathError("rename", from, fs.ErrNotExist)
	}
	if m.dirs[to] {
		return pathError("rename", to, syscall.EISDIR)
	}
	if from != to {
		m.change(nameOp{from: from, to: to, node: m.names[from]})
	}
	return nil
}

// Remove removes a file.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	if m.names[name] == nil {
		return pathError("remove", name, fs.ErrNotExist)
	}
	m.change(nameOp{from: name, node: m.names[name]})
	return nil
}

// List returns the sorted names in a directory.
func (m *Mem) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir = filepath.Clean(dir)
	if !m.dirs[dir] {
		return nil, pathError("list", dir, fs.ErrNotExist)
	}
	var names []string
	for name := range m.names {
		if filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	for name := range m.dirs {
		if filepath.Dir(name) == dir && name != dir {
			names = append(names, filepath.Base(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

// Mkdir makes a directory and its parents.
func (m *Mem) Mkdir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for dir = filepath.Clean(dir); !m.dirs[dir]; dir = filepath.Dir(dir) {
		if m.names[dir] != nil {
			return pathError("mkdir", dir, fs.ErrExist)
		}
		m.dirs[dir] = true
	}
	return nil
}

// SyncDir makes the changes of names in a directory durable, in their order.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir = filepath.Clean(dir)
	if !m.dirs[dir] {
		return pathError("fsync", dir, fs.ErrNotExist)
	}
	m.pending = slices.DeleteFunc(m.pending, func(op nameOp) bool {
		here := op.from != "" && filepath.Dir(op.from) == dir || op.to != "" && filepath.Dir(op.to) == dir
		if here {
			op.apply(m.durable)
		}
		return here
	})
	return nil
}

// Lock locks a directory of this file system.
func (m *Mem) Lock(name, owner string) (Lock, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	if !m.dirs[filepath.Dir(name)] {
		return nil, pathError("lock", name, fs.ErrNotExist)
	}
	if held, ok := m.locks[name]; ok {
		return nil, &LockedError{Name: name, Owner: held}
	}
	m.locks[name] = printable(owner)
	return &memLock{fs: m, name: name}, nil
}

type memLock struct {
	fs   *Mem
	name string
	once sync.Once
}

// Check always succeeds, because the lock does not depend on a file.
func (l *memLock) Check() error { return nil }

// Close unlocks the directory.
func (l *memLock) Close() error {
	err := fs.ErrClosed
	l.once.Do(func() {
		l.fs.mu.Lock()
		defer l.fs.mu.Unlock()
		delete(l.fs.locks, l.name)
		err = nil
	})
	return err
}

// Free returns the space that is left.
func (m *Mem) Free(string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.capacity == 0 {
		return 1 << 50, nil
	}
	return max(m.capacity-m.used(), 0), nil
}

// Corrupt replaces a file's bytes by the result of f, durably, even while the file is open. It is
// for tests of bit rot.
func (m *Mem) Corrupt(name string, f func([]byte) []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	node := m.names[filepath.Clean(name)]
	if node == nil {
		return pathError("corrupt", name, fs.ErrNotExist)
	}
	old := make([]byte, node.size)
	if _, err := node.readAt(old, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	data := f(old)
	node.truncate(0)
	node.writeAt(data, 0)
	node.sync()
	return nil
}
