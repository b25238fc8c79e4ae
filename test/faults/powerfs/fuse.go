//go:build linux

package powerfs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Mount mounts the disk at a directory until Unmount is called on the result. It needs the right to
// mount (root, preferably in a mount namespace of its own). The calling program must not use files
// in the directory itself: the kernel would ask the program about them while the program waits for
// the kernel.
func (d *Disk) Mount(at string) (*Mounted, error) {
	at0 := time.Duration(0)
	s, err := fs.Mount(at, &inode{disk: d, node: d.root}, &fs.Options{
		AttrTimeout: &at0, EntryTimeout: &at0, RootStableAttr: &fs.StableAttr{Ino: d.root.number},
		MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "powerfs", Name: "powerfs", DisableXAttrs: true, MaxWrite: 512 << 10},
	})
	if err != nil {
		return nil, fmt.Errorf("mounting with FUSE at %s: %w", at, err)
	}
	return &Mounted{at: at, server: s}, nil
}

// Mounted is a mounted disk.
type Mounted struct {
	at     string
	server *fuse.Server
}

// Unmount unmounts the directory, even if a program still has open files in it, and returns when no
// request is left. After a power cut, call Release first.
func (m *Mounted) Unmount() error {
	if err := syscall.Unmount(m.at, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting %s: %w", m.at, err)
	}
	m.server.Wait()
	return nil
}

// inode is a node for FUSE. It has no state of its own.
type inode struct {
	fs.Inode
	disk *Disk
	node *node
}

var (
	_ fs.NodeLookuper  = (*inode)(nil)
	_ fs.NodeCreater   = (*inode)(nil)
	_ fs.NodeMkdirer   = (*inode)(nil)
	_ fs.NodeUnlinker  = (*inode)(nil)
	_ fs.NodeRmdirer   = (*inode)(nil)
	_ fs.NodeRenamer   = (*inode)(nil)
	_ fs.NodeReaddirer = (*inode)(nil)
	_ fs.NodeOpener    = (*inode)(nil)
	_ fs.NodeReader    = (*inode)(nil)
	_ fs.NodeWriter    = (*inode)(nil)
	_ fs.NodeFsyncer   = (*inode)(nil)
	_ fs.NodeAllocater = (*inode)(nil)
	_ fs.NodeGetattrer = (*inode)(nil)
	_ fs.NodeSetattrer = (*inode)(nil)
	_ fs.NodeStatfser  = (*inode)(nil)
)

// child returns the kernel's node for a node of the disk.
func (i *inode) child(ctx context.Context, n *node, out *fuse.EntryOut) *fs.Inode {
	i.disk.mu.Lock()
	n.attr(&out.Attr)
	i.disk.mu.Unlock()
	return i.NewInode(ctx, &inode{disk: i.disk, node: n}, fs.StableAttr{Mode: n.mode & syscall.S_IFMT, Ino: n.number})
}

func (n *node) attr(a *fuse.Attr) {
	a.Ino, a.Mode, a.Nlink, a.Blksize = n.number, n.mode, 1, pageSize
	if !n.dir() {
		a.Size, a.Blocks = uint64(n.live.size), uint64(n.live.size+sectorSize-1)/sectorSize
	}
}

// Lookup finds a name.
func (i *inode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n, errno := i.disk.find(i.node, name)
	if errno != 0 {
		return nil, errno
	}
	return i.child(ctx, n, out), 0
}

// Create creates and opens a file.
func (i *inode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	n, errno := i.disk.enter(i.node, name, syscall.S_IFREG|mode&0o7777)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return i.child(ctx, n, out), nil, openFlags, 0
}

// Mkdir makes a directory.
func (i *inode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n, errno := i.disk.enter(i.node, name, syscall.S_IFDIR|mode&0o7777)
	if errno != 0 {
		return nil, errno
	}
	return i.child(ctx, n, out), 0
}

// Unlink removes a file.
func (i *inode) Unlink(_ context.Context, name string) syscall.Errno {
	return i.disk.remove(i.node, name, false)
}

// Rmdir removes an empty directory.
func (i *inode) Rmdir(_ context.Context, name string) syscall.Errno {
	return i.disk.remove(i.node, name, true)
}

// Rename renames a file or directory. It does not support the flags RENAME_EXCHANGE and
// RENAME_NOREPLACE.
func (i *inode) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	dir, ok := to.(*inode)
	if !ok || flags != 0 {
		return syscall.EINVAL
	}
	return i.disk.move(i.node, name, dir.node, newName)
}

// Readdir lists a directory in the order of names.
func (i *inode) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	if errno := i.disk.powered(); errno != 0 {
		return nil, errno
	}
	defer i.disk.mu.Unlock()
	var list []fuse.DirEntry
	for _, name := range slices.Sorted(maps.Keys(i.node.entries)) {
		n := i.node.entries[name]
		list = append(list, fuse.DirEntry{Name: name, Ino: n.number, Mode: n.mode & syscall.S_IFMT})
	}
	return fs.NewListDirStream(list), 0
}

// openFlags keep the kernel from caching contents, which may be stale after the disk has changed.
const openFlags = fuse.FOPEN_DIRECT_IO

// Open opens a file. It returns no handle, because the node has all state.
func (i *inode) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, openFlags, 0
}

// Read reads the current content.
func (i *inode) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, errno := i.disk.read(i.node, dest, off)
	return fuse.ReadResultData(dest[:n]), errno
}

// Write writes.
func (i *inode) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	n, errno := i.disk.write(i.node, data, off)
	return uint32(n), errno
}

// Fsync syncs a file or directory; fdatasync does the same here.
func (i *inode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	if i.node.dir() {
		return i.disk.syncDir(i.node)
	}
	return i.disk.sync(i.node)
}

// Allocate reserves room, which is always available, and extends the file to it. Other modes are
// not supported.
func (i *inode) Allocate(_ context.Context, _ fs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	if mode != 0 {
		return syscall.EOPNOTSUPP
	}
	if off > maxFile || size > maxFile {
		return syscall.EFBIG
	}
	return i.disk.resize(i.node, int64(off+size), true)
}

// Getattr describes a file or directory.
func (i *inode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if errno := i.disk.powered(); errno != 0 {
		return errno
	}
	defer i.disk.mu.Unlock()
	i.node.attr(&out.Attr)
	return 0
}

// Setattr changes the size. Modes, owners and times are accepted and ignored.
func (i *inode) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if size > maxFile {
			return syscall.EFBIG
		}
		if errno := i.disk.resize(i.node, int64(size), false); errno != 0 {
			return errno
		}
	}
	return i.Getattr(ctx, f, out)
}

// Statfs reports that there is room.
func (i *inode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	const blocks = 4 << 30 / pageSize
	*out = fuse.StatfsOut{Blocks: blocks, Bfree: blocks / 2, Bavail: blocks / 2, Files: 1 << 20, Ffree: 1 << 19, Bsize: pageSize, Frsize: pageSize, NameLen: 255}
	return 0
}
