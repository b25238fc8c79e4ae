package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// disk is what outlives a broker.
type disk interface {
	openLog(from commitlog.Offset, onFull func(bool)) (commitlog.Replay, commitlog.Log, error)
	snapshots() (commitlog.Snapshots, error)
	// pump lets the log work; a slow log may do only a part.
	pump(all bool)
	// crash is a power failure now, or with kill the end of the process alone.
	crash(rng *rand.Rand, kill bool)
	// crashIn arranges for a power failure at the n-th change of the file system from now on, for logs on files. From
	// then on crashed says true and nothing that happens counts.
	crashIn(n int, rng *rand.Rand)
	crashed() bool
	// fault lets the n-th operation fail; heal ends all faults and shortages.
	fault(rng *rand.Rand) string
	setFull(full bool)
	heal()
	// broken says that a fault has happened since it was set.
	broken() bool
}

// memDisk is the log in memory.
type memDisk struct {
	store  *memlog.Store
	log    *memlog.Log
	faulty bool
}

func (d *memDisk) openLog(from commitlog.Offset, _ func(bool)) (commitlog.Replay, commitlog.Log, error) {
	r, l, err := d.store.Open(memlog.Options{From: from, Manual: true})
	if err != nil {
		return nil, nil, err
	}
	d.log = l
	return r, l, nil
}

func (d *memDisk) snapshots() (commitlog.Snapshots, error) { return d.store.Snapshots(), nil }
func (d *memDisk) crashIn(int, *rand.Rand)                 {}
func (d *memDisk) crashed() bool                           { return false }
func (d *memDisk) setFull(bool)                            {}
func (d *memDisk) broken() bool                            { return d.faulty }

func (d *memDisk) pump(all bool) {
	if all {
		d.log.Pump()
	} else {
		d.log.PumpN(1)
	}
}

func (d *memDisk) crash(rng *rand.Rand, _ bool) { d.store.Crash(rng.IntN(3)); d.faulty = false }

func (d *memDisk) fault(*rand.Rand) string {
	d.store.Fail(errors.New("injected"))
	d.faulty = true
	return "the next write fails"
}

func (d *memDisk) heal() {
	if d.faulty {
		d.store.Fail(nil)
	}
	d.faulty = false
}

// fileDisk is the log on a file system that can crash at any operation.
type fileDisk struct {
	mem    *vfs.Mem
	inject *vfs.Inject
	log    *disklog.Log
	random *rand.ChaCha8
	cache  bool
	down   int      // changes until the power fails; 0: never
	after  *vfs.Mem // what the power failure left
	rng    *rand.Rand
	states *int // counts crash states
	full   bool
}

func newFileDisk(seed uint64, cache bool, states *int) *fileDisk {
	var key [32]byte
	key[0], key[1], key[2], key[3] = byte(seed), byte(seed>>8), byte(seed>>16), byte(seed>>24)
	d := &fileDisk{mem: vfs.NewMem(), random: rand.NewChaCha8(key), cache: cache, states: states}
	d.wrap()
	return d
}

// wrap puts the faults and the count of operations around the file system, anew for every process.
func (d *fileDisk) wrap() {
	d.inject = vfs.NewInject(d.mem)
	d.inject.SetHook(func(op vfs.Op, _ string) {
		if d.down > 0 && op&vfs.OpChange != 0 {
			if d.down--; d.down == 0 {
				d.after = d.mem.CrashClone(d.rng, drawCrash(d.rng))
				*d.states++
			}
		}
	})
}

func drawCrash(rng *rand.Rand) vfs.Crash {
	return vfs.Crash{Percent: []int{0, 50, 90, 100, rng.IntN(101)}[rng.IntN(5)], Torn: rng.IntN(2) == 0, Garbage: rng.IntN(2) == 0}
}

func (d *fileDisk) openLog(from commitlog.Offset, onFull func(bool)) (commitlog.Replay, commitlog.Log, error) {
	cache := int64(-1)
	if d.cache {
		cache = 4096
	}
	r, l, err := disklog.Open(disklog.Options{FS: d.inject, Dir: "data/log", SegmentBytes: disklog.MinSegmentBytes, From: from, Manual: true,
		CacheBytes: cache, MinFree: -1, OnFull: onFull, Rand: d.random})
	if err != nil {
		return nil, nil, err
	}
	d.log = l
	return r, l, nil
}

func (d *fileDisk) snapshots() (commitlog.Snapshots, error) {
	return disklog.OpenSnapshots(d.inject, "data/snapshots")
}

func (d *fileDisk) pump(bool)                     { d.log.Pump() }
func (d *fileDisk) crashIn(n int, rng *rand.Rand) { d.down, d.rng = n, rng }
func (d *fileDisk) crashed() bool                 { return d.after != nil }

func (d *fileDisk) crash(rng *rand.Rand, kill bool) {
	if d.after == nil {
		c := drawCrash(rng)
		if kill {
			c = vfs.Crash{Percent: 100}
		}
		d.after = d.mem.CrashClone(rng, c)
		*d.states++
	}
	d.mem, d.after, d.down = d.after, nil, 0
	d.wrap()
}

func (d *fileDisk) fault(rng *rand.Rand) string {
	f := vfs.Fault{Ops: []vfs.Op{vfs.OpChange, vfs.OpWrite, vfs.OpSync, vfs.OpAny, vfs.OpRead}[rng.IntN(5)], N: 1 + rng.IntN(12),
		Forever: rng.IntN(2) == 0, Err: []error{syscall.EIO, syscall.ENOSPC}[rng.IntN(2)], Short: rng.IntN(2) == 0}
	d.inject.SetFault(f)
	return fmt.Sprintf("operation %d of kind %x fails with %v, forever=%v short=%v", f.N, f.Ops, f.Err, f.Forever, f.Short)
}

func (d *fileDisk) setFull(full bool) {
	d.full = full
	if full {
		d.mem.SetCapacity(1) // nothing more can be had; what is there stays
	} else {
		d.mem.SetCapacity(0)
	}
}

func (d *fileDisk) heal() {
	d.inject.SetFault(vfs.Fault{})
	d.setFull(false)
}

func (d *fileDisk) broken() bool { return d.inject.Failed() > 0 || d.full }
