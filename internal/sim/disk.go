package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// disk is the storage that outlives a broker.
type disk interface {
	openLog(from commitlog.Offset, hooks broker.LogHooks) (commitlog.Replay, commitlog.Log, error)
	// scrub makes the log check some of its files.
	scrub(files int)
	snapshots() (commitlog.Snapshots, error)
	// pump runs the log. A slow log may do only a part of its work.
	pump(all bool)
	// inFlight returns the number of entries in flight. waits returns the time until the log does
	// something; it returns false if time does not help.
	inFlight() int
	waits() (time.Duration, bool)
	// crash makes the power fail now. With kill, it ends only the process.
	crash(rng *rand.Rand, kill bool)
	// crashIn makes the power fail at the n-th change of the file system from now on, for logs on
	// files. After the power failure crashed returns true, and later events do not count.
	crashIn(n int, rng *rand.Rand)
	crashed() bool
	// fault makes the n-th operation fail. heal ends all faults and shortages.
	fault(rng *rand.Rand) string
	plan(f *FaultPlan)
	// misread makes the n-th read fail.
	misread(n int)
	setFull(full bool)
	// used returns the bytes of all files, or 0 if there are none.
	used() int64
	// checksum covers all bytes of all files. It is 0 if there are none.
	checksum() uint64
	heal()
	// broken tells whether the fault has happened since the call of fault.
	broken() bool
}

// memDisk is the log in memory.
type memDisk struct {
	store  *memlog.Store
	log    *memlog.Stepped
	remote memlog.Options // latency, gaps and pace of the log
	faulty bool
}

func (d *memDisk) openLog(from commitlog.Offset, _ broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
	o := d.remote
	o.From = from
	r, l, err := d.store.OpenStepped(o)
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
func (d *memDisk) used() int64                             { return 0 }
func (d *memDisk) scrub(int)                               {}
func (d *memDisk) broken() bool                            { return d.faulty }

func (d *memDisk) pump(all bool) {
	if all {
		d.log.Pump()
	} else {
		d.log.PumpN(1)
	}
}

func (d *memDisk) inFlight() int                { return d.log.InFlight() }
func (d *memDisk) waits() (time.Duration, bool) { return d.log.Due() }

func (d *memDisk) crash(rng *rand.Rand, _ bool) {
	most := 3
	if d.remote.Latency > 0 {
		most = 2 + d.remote.Pace.Entries
	}
	d.store.Crash(rng.IntN(most))
	d.faulty = false
}

func (d *memDisk) fault(*rand.Rand) string {
	d.store.Fail(errors.New("injected"))
	d.faulty = true
	return "the next write fails"
}

func (d *memDisk) checksum() uint64 { return 0 }

func (d *memDisk) plan(*FaultPlan) { d.fault(nil) }

func (d *memDisk) misread(int) {}

func (d *memDisk) heal() {
	if d.faulty {
		d.store.Fail(nil)
	}
	d.faulty = false
}

// dataDir contains the log and the snapshots, as in a server's data directory.
const dataDir = "data/log"

// fileDisk is the log on a file system that can crash at any operation.
type fileDisk struct {
	mem    *vfs.Mem
	inject *vfs.Inject
	snaps  *disklog.Snapshots
	log    *disklog.Stepped
	late   *lateLog // wraps log in a run with a latency; nil in others
	o      *Options
	random *rand.ChaCha8
	cache  bool
	down   int      // changes until the power fails; 0: never
	after  *vfs.Mem // the file system after the power failure
	rng    *rand.Rand
	count  *Counters
	full   bool
	opens  uint64
	clock  clock.Clock
	size   int64 // of the whole disk; 0: no limit
	// changed is called after every change of the file system while there is power.
	changed func(op vfs.Op, name string)
	// fell is called when the power has failed because of crashIn. The power of other disks fails at
	// the same moment.
	fell func()
}

func newFileDisk(o *Options, count *Counters) *fileDisk {
	d := &fileDisk{mem: vfs.NewMem(), random: idSource(o.Seed), cache: o.Cache, o: o, count: count}
	d.wrap()
	return d
}

// idSource returns the source of the files' ids.
func idSource(seed uint64) *rand.ChaCha8 {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// wrap wraps the file system with faults and a count of operations, for a new process.
func (d *fileDisk) wrap() {
	d.met()
	d.inject = vfs.NewInject(d.mem)
	d.inject.SetHook(func(op vfs.Op, name string) {
		if op&vfs.OpChange == 0 || d.after != nil {
			return
		}
		if d.down > 0 {
			if d.down--; d.down == 0 {
				d.after = d.mem.CrashClone(d.rng, drawCrash(d.rng))
				d.count.one(CrashStates)
				if d.fell != nil {
					d.fell()
				}
				return
			}
		}
		if d.changed != nil {
			d.changed(op, name)
		}
	})
}

func drawCrash(rng *rand.Rand) vfs.Crash {
	return vfs.Crash{Percent: []int{0, 50, 90, 100, rng.IntN(101)}[rng.IntN(5)], Torn: rng.IntN(2) == 0, Garbage: rng.IntN(2) == 0}
}

func (d *fileDisk) openLog(from commitlog.Offset, hooks broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
	o := logOptions(d.inject, dataDir, d.cache, d.random, from, hooks.Full, d.clock)
	o.OnDamage, o.Snapshots = hooks.Damage, d.snaps
	r, l, err := disklog.OpenStepped(o)
	if err != nil {
		return nil, nil, err
	}
	d.log, d.late = l, nil
	if d.o.Latency == 0 {
		return r, l, nil
	}
	d.opens++
	d.late = &lateLog{Stepped: l, clock: d.clock, latency: d.o.Latency, pace: d.o.pace(), rng: rand.New(rand.NewPCG(d.o.Seed, 0x1a7e<<32|d.opens))}
	return r, d.late, nil
}

func logOptions(fs vfs.FS, dir string, cached bool, random io.Reader, from commitlog.Offset, onFull func(bool), c clock.Clock) disklog.Options {
	cache := int64(-1)
	if cached {
		cache = 4096
	}
	return disklog.Options{FS: fs, Dir: dir, SegmentBytes: 4 * disklog.MinSegmentBytes, FirstBytes: disklog.MinSegmentBytes, From: from,
		CacheBytes: cache, MinFree: -1, OnFull: onFull, Rand: random, Clock: c}
}

func (d *fileDisk) snapshots() (_ commitlog.Snapshots, err error) {
	if d.snaps, err = disklog.OpenSnapshots(d.inject, dataDir); err != nil {
		return nil, err
	}
	return d.snaps, nil
}

func (d *fileDisk) used() int64 { return d.mem.Used() }

func (d *fileDisk) checksum() uint64 { return d.mem.Checksum() }

func (d *fileDisk) scrub(files int) {
	for range files {
		d.log.ScrubStep()
	}
}

func (d *fileDisk) pump(bool) {
	if d.late != nil {
		d.late.pump()
	} else {
		d.log.Pump()
	}
}

func (d *fileDisk) inFlight() int {
	if d.late == nil {
		return 0
	}
	return len(d.late.queue)
}

func (d *fileDisk) waits() (time.Duration, bool) {
	if d.late == nil {
		return 0, false
	}
	return d.late.waits()
}

func (d *fileDisk) crashIn(n int, rng *rand.Rand) { d.down, d.rng = n, rng }
func (d *fileDisk) crashed() bool                 { return d.after != nil }

func (d *fileDisk) crash(rng *rand.Rand, kill bool) {
	if d.after == nil {
		c := drawCrash(rng)
		if kill {
			c = vfs.Crash{Percent: 100}
		}
		d.after = d.mem.CrashClone(rng, c)
		d.count.one(CrashStates)
	}
	d.mem, d.after, d.down = d.after, nil, 0
	d.wrap()
}

func (d *fileDisk) fault(rng *rand.Rand) string {
	f := vfs.Fault{Ops: []vfs.Op{vfs.OpChange, vfs.OpWrite, vfs.OpSync, vfs.OpAny, vfs.OpRead}[rng.IntN(5)], N: 1 + rng.IntN(12),
		Forever: rng.IntN(2) == 0, Err: []error{syscall.EIO, syscall.ENOSPC}[rng.IntN(2)], Short: rng.IntN(2) == 0}
	d.met()
	d.inject.SetFault(f)
	return fmt.Sprintf("operation %d of kind %x fails with %v, forever=%v short=%v", f.N, f.Ops, f.Err, f.Forever, f.Short)
}

// plan sets the fault of a plan.
func (d *fileDisk) plan(f *FaultPlan) {
	err := syscall.EIO
	if f.NoSpace {
		err = syscall.ENOSPC
	}
	d.inject.SetFault(vfs.Fault{Ops: vfs.OpAny &^ (vfs.OpClose | vfs.OpLock), N: f.N, Forever: f.Forever, Short: f.Short, Err: err})
}

func (d *fileDisk) misread(n int) {
	d.met()
	d.inject.SetFault(vfs.Fault{Ops: vfs.OpRead, N: n, Err: syscall.EIO})
}

func (d *fileDisk) setFull(full bool) {
	d.full = full
	if full {
		d.mem.SetCapacity(1) // no more space can be allocated; existing data stays
	} else {
		d.mem.SetCapacity(d.size)
	}
}

// met counts the effects of the present fault, because setting another resets them.
func (d *fileDisk) met() {
	if d.inject != nil {
		d.count.N[FaultsMet] += int64(d.inject.Failed())
	}
}

func (d *fileDisk) heal() {
	d.met()
	d.inject.SetFault(vfs.Fault{})
	d.setFull(false)
}

func (d *fileDisk) broken() bool { return d.inject.Failed() > 0 || d.full }
