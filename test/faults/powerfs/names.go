//go:build linux

package powerfs

import (
	"slices"
	"syscall"
)

// enter creates a file or directory with a free name.
func (d *Disk) enter(dir *node, name string, mode uint32) (*node, syscall.Errno) {
	o, errno := d.begin(Op{Kind: Name})
	if errno != 0 {
		return nil, errno
	}
	defer d.mu.Unlock()
	if o.Err != 0 {
		return nil, o.Err
	}
	if dir.entries[name] != nil {
		return nil, syscall.EEXIST
	}
	var n *node
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		n = d.newDir(mode & 0o7777)
	} else {
		n = d.newFile(mode & 0o7777)
	}
	d.rename(nameChange{node: n, to: dir, new: name})
	return n, 0
}

// remove removes a name.
func (d *Disk) remove(dir *node, name string, isDir bool) syscall.Errno {
	o, errno := d.begin(Op{Kind: Name})
	if errno != 0 {
		return errno
	}
	defer d.mu.Unlock()
	n := dir.entries[name]
	switch {
	case o.Err != 0:
		return o.Err
	case n == nil:
		return syscall.ENOENT
	case isDir && !n.dir():
		return syscall.ENOTDIR
	case !isDir && n.dir():
		return syscall.EISDIR
	case isDir && len(n.entries) > 0:
		return syscall.ENOTEMPTY
	}
	d.rename(nameChange{node: n, from: dir, old: name})
	return 0
}

// move renames a node. A node that already has the new name is replaced.
func (d *Disk) move(from *node, old string, to *node, name string) syscall.Errno {
	o, errno := d.begin(Op{Kind: Name})
	if errno != 0 {
		return errno
	}
	defer d.mu.Unlock()
	n, was := from.entries[old], to.entries[name]
	switch {
	case o.Err != 0:
		return o.Err
	case n == nil:
		return syscall.ENOENT
	case n == was:
		return 0
	case was != nil && was.dir() && !n.dir():
		return syscall.EISDIR
	case was != nil && n.dir() && !was.dir():
		return syscall.ENOTDIR
	case was != nil && was.dir() && len(was.entries) > 0:
		return syscall.ENOTEMPTY
	}
	d.rename(nameChange{node: n, from: from, old: old, to: to, new: name})
	return 0
}

// rename changes names as programs see them, and records that the change is not on the disk.
func (d *Disk) rename(c nameChange) {
	c.step = d.steps
	c.apply(func(n *node) map[string]*node { return n.entries })
	d.names = append(d.names, c)
}

// apply makes the change in each directory's names, which the function of returns. A name that now
// belongs to another node is not removed.
func (c *nameChange) apply(of func(*node) map[string]*node) {
	if c.from != nil && of(c.from)[c.old] == c.node {
		delete(of(c.from), c.old)
	}
	if c.to != nil {
		of(c.to)[c.new] = c.node
	}
}

// syncDir writes the changes of a directory's names to the disk. A rename between two directories
// is one step, so a sync of either writes it.
func (d *Disk) syncDir(dir *node) syscall.Errno {
	o, errno := d.begin(Op{Kind: SyncName})
	if errno != 0 {
		return errno
	}
	defer d.mu.Unlock()
	switch {
	case o.Lie:
		return 0
	case o.Err != 0:
		return o.Err
	}
	d.names = slices.DeleteFunc(d.names, func(c nameChange) bool {
		mine := c.from == dir || c.to == dir
		if mine {
			c.apply(func(n *node) map[string]*node { return n.keptEntries })
		}
		return mine
	})
	return 0
}

// find returns the node of a name.
func (d *Disk) find(dir *node, name string) (*node, syscall.Errno) {
	if errno := d.powered(); errno != 0 {
		return nil, errno
	}
	defer d.mu.Unlock()
	if n := dir.entries[name]; n != nil {
		return n, 0
	}
	return nil, syscall.ENOENT
}
