// Package powerfs is a disk whose power can be cut: a FUSE file system that remembers which data
// was synced. For a program it is an ordinary file system. After a cut, synced data is there. Of
// the rest, as much or as little is there, in whatever order and as damaged, as the caller chooses.
// The disk can also lie about syncs, fail them once, write less than it was given, or make callers
// wait.
//
// It is stricter than real file systems. Syncing a file keeps its bytes and size but not its name.
// A name (a creation, a rename, a removal) is kept by syncing its directory. Every write, every
// change of a size and every change of a name may survive without earlier ones. A program that
// loses nothing here depends only on what POSIX guarantees.
//
// The state is in memory (Disk); Mount mounts it at a directory. The caller's random numbers decide
// everything, so the same operations and the same seed leave the same files.
package powerfs
