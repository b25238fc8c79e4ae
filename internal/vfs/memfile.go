package vfs

import (
	"io"
	"io/fs"
	"path/filepath"
	"syscall"
)

// block is one block of a file. A write never changes a block in a node, but replaces it. So the
// durable contents, the visible contents and the clones of a file system can share blocks. nil
// stands for zeros.
type block [blockSize]byte

// memNode is a file's contents. The lock of its Mem guards it.
type memNode struct {
	blocks  []*block // the contents that processes see; len is the space of the file
	size    int64
	durable []*block // the contents on the medium
	onDisk  int64    // the size on the medium
	dirty   map[int]struct{}
}

func blocksOf(size int64) int { return int((size + blockSize - 1) / blockSize) }

func blockAt(blocks []*block, i int) *block {
	if i < len(blocks) {
		return blocks[i]
	}
	return nil
}

func (n *memNode) readAt(p []byte, off int64) (int, error) {
	if off >= n.size {
		return 0, io.EOF
	}
	var err error
	if rest := n.size - off; int64(len(p)) > rest {
		p, err = p[:rest], io.EOF
	}
	for done := 0; done < len(p); {
		at := off + int64(done)
		in := int(at % blockSize)
		part := p[done:min(len(p), done+blockSize-in)]
		if b := blockAt(n.blocks, int(at/blockSize)); b != nil {
			copy(part, b[in:])
		} else {
			clear(part)
		}
		done += len(part)
	}
	return len(p), err
}

func (n *memNode) writeAt(p []byte, off int64) {
	n.grow(off + int64(len(p)))
	for done := 0; done < len(p); {
		at := off + int64(done)
		i, in := int(at/blockSize), int(at%blockSize)
		b := new(block)
		if old := n.blocks[i]; old != nil {
			*b = *old
		}
		done += copy(b[in:], p[done:])
		n.blocks[i] = b
		n.dirty[i] = struct{}{}
	}
}

func (n *memNode) grow(size int64) {
	if size <= n.size {
		return
	}
	n.size = size
	for len(n.blocks) < blocksOf(size) {
		n.dirty[len(n.blocks)] = struct{}{}
		n.blocks = append(n.blocks, nil)
	}
}

func (n *memNode) truncate(size int64) {
	if size >= n.size {
		n.grow(size)
		return
	}
	for i := blocksOf(size); i < len(n.blocks); i++ {
		n.dirty[i] = struct{}{}
	}
	n.blocks = append([]*block(nil), n.blocks[:blocksOf(size)]...)
	n.size = size
	if in := int(size % blockSize); in != 0 {
		if old := n.blocks[len(n.blocks)-1]; old != nil {
			b := new(block)
			copy(b[:in], old[:in])
			n.blocks[len(n.blocks)-1] = b
		}
		n.dirty[len(n.blocks)-1] = struct{}{}
	}
}

// sync makes the visible contents durable.
func (n *memNode) sync() {
	want := len(n.blocks)
	for len(n.durable) < want {
		n.durable = append(n.durable, nil)
	}
	n.durable = n.durable[:want]
	for i := range n.dirty {
		if i < want {
			n.durable[i] = n.blocks[i]
		}
	}
	n.onDisk = n.size
	clear(n.dirty)
}

// memFile is an open file of a Mem.
type memFile struct {
	fs       *Mem
	node     *memNode
	name     string
	writable bool
	closed   bool
}

// enter locks the file system. It fails if the file is closed or, for a change, not writable.
func (f *memFile) enter(op string, change bool) error {
	f.fs.mu.Lock()
	switch {
	case f.closed:
		f.fs.mu.Unlock()
		return pathError(op, f.name, fs.ErrClosed)
	case change && !f.writable:
		f.fs.mu.Unlock()
		return pathError(op, f.name, syscall.EBADF)
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.enter("read", false); err != nil {
		return 0, err
	}
	defer f.fs.mu.Unlock()
	return f.node.readAt(p, off)
}

// room reports whether the file system has space for the file to grow to a size.
func (f *memFile) room(size int64) bool {
	more := int64(blocksOf(size)-len(f.node.blocks)) * blockSize
	return f.fs.capacity == 0 || more <= 0 || f.fs.used()+more <= f.fs.capacity
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.enter("write", true); err != nil {
		return 0, err
	}
	defer f.fs.mu.Unlock()
	if !f.room(off + int64(len(p))) {
		return 0, pathError("write", f.name, syscall.ENOSPC)
	}
	f.node.writeAt(p, off)
	return len(p), nil
}

func (f *memFile) WriteVec(bufs [][]byte, off int64) (int64, error) { return writeVec(f, bufs, off) }

func (f *memFile) Sync() error {
	if err := f.enter("fsync", false); err != nil {
		return err
	}
	defer f.fs.mu.Unlock()
	f.node.sync()
	return nil
}

// forget marks everything written as clean without writing it to the medium, as Linux does with
// pages whose write failed. Inject calls it for a failed Sync.
func (f *memFile) forget() {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	clear(f.node.dirty)
}

func (f *memFile) Preallocate(size int64) error {
	if err := f.enter("fallocate", true); err != nil {
		return err
	}
	defer f.fs.mu.Unlock()
	if !f.room(size) {
		return pathError("fallocate", f.name, syscall.ENOSPC)
	}
	f.node.grow(size)
	return nil
}

func (f *memFile) Truncate(size int64) error {
	if err := f.enter("truncate", true); err != nil {
		return err
	}
	defer f.fs.mu.Unlock()
	if !f.room(size) {
		return pathError("truncate", f.name, syscall.ENOSPC)
	}
	f.node.truncate(size)
	return nil
}

func (f *memFile) Size() (int64, error) {
	if err := f.enter("stat", false); err != nil {
		return 0, err
	}
	defer f.fs.mu.Unlock()
	return f.node.size, nil
}

// Check compares the file with the file that has its name now.
func (f *memFile) Check() (int64, error) {
	if err := f.enter("stat", false); err != nil {
		return 0, err
	}
	defer f.fs.mu.Unlock()
	if at := f.fs.names[filepath.Clean(f.name)]; at != f.node {
		return 0, &GoneError{Name: f.name, Replaced: at != nil}
	}
	return f.node.size, nil
}

func (f *memFile) Close() error {
	if err := f.enter("close", false); err != nil {
		return err
	}
	defer f.fs.mu.Unlock()
	f.closed = true
	return nil
}
