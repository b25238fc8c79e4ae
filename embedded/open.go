package embedded

import (
	"errors"
	"path/filepath"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// Open opens the broker whose data is in dir. It creates a missing directory. Only one process at a
// time can open it. After a crash, the broker has all confirmed messages. If stored bytes are
// damaged, Open fails with CodeCorrupt.
//
//	dir/log/            the log in segments, and snapshots of the state, which make opening faster
//	dir/shard-2/log/    with Options.Shards above 1: the same for each further shard
//
// With several shards, Open fails only if the first one cannot be opened, or if the directories do
// not belong together. The broker works without another shard, and opens it when that becomes
// possible: see Shard.
func Open(dir string, opts Options) (*Broker, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(dir) // a later change of the working directory must not move the log
	if err != nil {
		return nil, surgetank.Errorf(surgetank.CodeInvalid, "the directory %q has no absolute path: %w", dir, err)
	}
	if opts.Shards > 1 {
		return opts.openShards(abs)
	}
	b, err := openOne(abs, opts)
	if err != nil {
		return nil, err
	}
	if err := b.alone(opts); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// openOne opens one shard. dir is absolute.
func openOne(dir string, opts Options) (*Broker, error) {
	var fs vfs.FS = vfs.OS{}
	if opts.fs != nil {
		fs = opts.fs
	}
	var only disklog.Identity // of the log of the first opening
	return opts.open(dir, func(after uint64) (*instance, error) {
		if opts.link != nil && only == (disklog.Identity{}) {
			if err := opts.link.mayMake(fs, dir); err != nil {
				return nil, err
			}
		}
		in, err := opts.openLog(fs, filepath.Join(dir, "log"), only, after)
		if err == nil {
			only = in.log.Identity()
		}
		return in, err
	})
}

// openLog opens a broker on the log in dir. If only is not zero, that log must be there.
func (o *Options) openLog(fs vfs.FS, dir string, only disklog.Identity, after uint64) (*instance, error) {
	if only != (disklog.Identity{}) { // before the snapshots are read
		if err := only.Check(fs, dir); err != nil {
			return nil, err
		}
	}
	snapshots, err := disklog.OpenSnapshots(fs, dir)
	if err != nil {
		return nil, err
	}
	p := o.broker()
	p.Snapshots, p.After = snapshots, after
	var log *disklog.Log
	p.OpenLog = func(from commitlog.Offset, hooks broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
		replay, l, err := disklog.Open(disklog.Options{
			FS: fs, Dir: dir, From: from, Only: only, OnFull: hooks.Full, OnDamage: hooks.Damage, Snapshots: snapshots, Logger: o.Logger, Clock: o.clock,
			CacheBytes: o.CacheBytes, SegmentBytes: o.SegmentBytes,
			ScrubEvery: o.ScrubEvery, ScrubRate: o.ScrubRate,
		})
		log = l
		return wrap(replay, l, err)
	}
	b, err := broker.Open(p)
	if err != nil {
		return nil, err
	}
	return &instance{b, log}, nil
}
