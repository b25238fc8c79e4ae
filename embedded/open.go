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
	fs := vfs.OS{}
	o := opts.broker()
	snapshots, err := disklog.OpenSnapshots(fs, filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	o.Snapshots = snapshots
	var log *disklog.Log
	o.OpenLog = func(from commitlog.Offset, hooks broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
		replay, l, err := disklog.Open(disklog.Options{
			FS: fs, Dir: filepath.Join(dir, "log"), From: from, OnFull: hooks.Full, OnDamage: hooks.Damage, Snapshots: snapshots, Logger: opts.Logger, Clock: opts.clock,
			CacheBytes: opts.CacheBytes, SegmentBytes: opts.SegmentBytes,
			ScrubEvery: opts.ScrubEvery, ScrubRate: opts.ScrubRate,
		})
		log = l
		return wrap(replay, l, err)
	}
	b, err := broker.Open(o)
	if err != nil {
		return nil, err
	}
	return newBroker(b, log, dir), nil
}
