// Package powerfs is a disk whose power can be cut: a FUSE file system that remembers which data
// was synced. For a program it is an ordinary file system. After a cut, all synced data is there.
// The caller's Survival decides which unsynced data is there, and in what condition. The disk can
// also lie about syncs, fail them once, write only a part of the data, or make callers wait.
//
// The disk is stricter than real file systems. Syncing a file makes its bytes and size durable, but
// not its name. A name (a creation, a rename, a removal) becomes durable when its directory is
// synced. Every write, every change of a size and every change of a name may survive without
// earlier ones. A program that loses nothing here depends only on what POSIX guarantees.
//
// The state is in memory (Disk); Mount mounts it at a directory. All random choices use the
// caller's generator, so the same operations with the same seed leave the same files.
package powerfs
