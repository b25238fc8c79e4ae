// Package powerfs is a disk whose power can be cut: a file system, mounted with FUSE, that
// remembers what was synced and what was not. A program on it sees an ordinary file system. At a
// cut, what it synced is there, and of the rest as much or as little, in whatever order, and as
// broken as the caller chooses. The same disk can also lie about syncs, fail them once, write less
// than it was given, or make callers wait.
//
// It is stricter than the file systems people use: syncing a file keeps its bytes and size and not
// its name; a name (a creation, a rename, a removal) is kept by syncing its directory; every write,
// every change of a size and every change of a name may survive without those before it. A program
// that loses nothing here relies on nothing but what POSIX says.
//
// The state is in memory (Disk); Mount shows it at a directory. Everything is decided by the
// caller's random numbers, so that the same operations and the same seed leave the same files.
package powerfs
