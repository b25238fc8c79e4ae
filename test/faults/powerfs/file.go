//go:build linux

package powerfs

import (
	"bytes"
	"syscall"
)

// maxFile limits files, because they are in memory.
const maxFile = 1 << 40

// write writes bytes into a file and returns how many it wrote.
func (d *Disk) write(n *node, b []byte, off int64) (int, syscall.Errno) {
	o, errno := d.begin(Op{Kind: Write, Data: b})
	if errno != 0 {
		return 0, errno
	}
	defer d.mu.Unlock()
	if o.Err != 0 {
		return 0, o.Err
	}
	if off < 0 || off+int64(len(b)) > maxFile {
		return 0, syscall.EFBIG
	}
	if o.Short > 0 {
		b = b[:min(len(b), o.Short)]
	}
	n.live.write(b, off, &n.kept)
	n.pending = append(n.pending, change{step: d.steps, off: off, data: bytes.Clone(b)})
	return len(b), 0
}

// resize sets a file's size.
func (d *Disk) resize(n *node, size int64, grows bool) syscall.Errno {
	o, errno := d.begin(Op{Kind: Size})
	if errno != 0 {
		return errno
	}
	defer d.mu.Unlock()
	switch {
	case o.Err != 0:
		return o.Err
	case n.dir():
		return syscall.EISDIR
	case size < 0 || size > maxFile:
		return syscall.EFBIG
	case size == n.live.size || grows && size < n.live.size:
		return 0
	}
	n.live.resize(size, &n.kept)
	n.pending = append(n.pending, change{step: d.steps, off: size, grows: grows})
	return 0
}

// sync writes a file's bytes and size to the disk, or fails or lies as the fault decides.
func (d *Disk) sync(n *node) syscall.Errno {
	o, errno := d.begin(Op{Kind: Sync})
	if errno != 0 {
		return errno
	}
	defer d.mu.Unlock()
	switch {
	case o.Lie:
		return 0
	case o.Err != 0:
		n.pending = nil // the data counts as clean although the disk lacks it
		return o.Err
	}
	for _, c := range n.pending {
		if c.data == nil { // a new size, which is rare
			n.kept = n.live.clone()
			n.pending = nil
			return 0
		}
	}
	for _, c := range n.pending {
		for i := c.off / pageSize; i*pageSize < c.off+int64(len(c.data)); i++ {
			n.kept.pages[i] = n.live.pages[i]
		}
		n.kept.size = max(n.kept.size, c.off+int64(len(c.data)))
	}
	n.pending = nil
	return 0
}

// read reads the current content of a file.
func (d *Disk) read(n *node, b []byte, off int64) (int, syscall.Errno) {
	if errno := d.powered(); errno != 0 {
		return 0, errno
	}
	defer d.mu.Unlock()
	return n.live.read(b, off), 0
}
