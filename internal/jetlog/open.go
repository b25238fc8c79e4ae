package jetlog

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/jetlog/fenced"
)

// Options describe a log. Conn and ID are required, and System or UnsafeSync.
type Options struct {
	// Conn is a connection made by Connect. Several logs can share it. Closing a log does not close
	// it.
	Conn *nats.Conn
	// System is a connection of the system account, which is used to read the servers' settings.
	System *nats.Conn
	ID     string // the log's id; see Config
	// UnsafeSync allows servers that do not sync always, and asks no server. Then a power failure
	// of several servers can lose everything.
	UnsafeSync bool
	// UnsafeReplicas allows streams with fewer than three replicas.
	UnsafeReplicas bool

	Window     int64         // see fenced.Options
	Silence    time.Duration // see fenced.Options
	GiveUp     time.Duration // see fenced.Options
	CacheBytes int64         // see fenced.Options
	Logger     *slog.Logger  // nil: discarded
	Clock      clock.Clock   // nil: the real clock

	// stream wraps the stream, for tests.
	stream func(fenced.Stream) fenced.Stream
}

// Log is an open log. See fenced.Log.
type Log struct {
	*fenced.Log
	stream *Stream
}

var (
	_ commitlog.Log   = (*Log)(nil)
	_ commitlog.Pacer = (*Log)(nil)
)

// Acquire checks the streams and the servers, and makes the caller the owner of the log. The
// streams must exist; see Create. Then Snapshots are read, and Open begins the replay.
func Acquire(ctx context.Context, o Options) (*Log, error) {
	if err := errors.Join(checkID(o.ID), checkConn(o.Conn)); err != nil {
		return nil, err
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	s, err := newStream(o.Conn, o.ID, o.Clock)
	if err != nil {
		return nil, surgetank.Errorf(surgetank.CodeUnavailable, "the connection to NATS cannot be used: %w", err)
	}
	if err := s.check(ctx, o); err != nil {
		s.close()
		return nil, err
	}
	var stream fenced.Stream = s
	if o.stream != nil {
		stream = o.stream(s)
	}
	l, err := fenced.Acquire(ctx, fenced.Options{Stream: stream, Name: o.ID, Window: o.Window, Silence: o.Silence, GiveUp: o.GiveUp,
		CacheBytes: o.CacheBytes, Logger: o.Logger, Clock: o.Clock})
	if err != nil {
		s.close()
		return nil, err
	}
	return &Log{l, s}, nil
}

// Close closes the log; see commitlog.Log.
func (l *Log) Close() error {
	err := l.Log.Close()
	l.stream.Listen(func(fenced.Answer) {}, func() {})
	l.stream.close()
	return err
}

// checkPause is the pause between two questions for the state of a stream, and checkFor is the time
// for all of them. It is longer than the election of a leader.
const (
	checkPause = 250 * time.Millisecond
	checkFor   = 15 * time.Second
)

// check refuses streams and servers with which confirmed entries could be lost.
func (s *Stream) check(ctx context.Context, o Options) error {
	log, snap := streams(Config{ID: o.ID})
	var servers []string
	for _, want := range []*jetstream.StreamConfig{&log, &snap} {
		info, err := s.waitInfo(ctx, want.Name)
		if err != nil {
			return surgetank.Errorf(surgetank.CodeUnavailable, "the state of the stream %s cannot be read: %w; check that it exists and that its servers run", want.Name, err)
		}
		if list := problems(info.Config, *want, o.UnsafeReplicas); len(list) > 0 {
			return surgetank.Errorf(surgetank.CodeInvalid, "confirmed messages could be lost with the stream %s: %s; nothing was changed; change these settings, or create the stream with jetlog.Create", want.Name, strings.Join(list, "; "))
		}
		servers = append(servers, replicas(info)...)
	}
	slices.Sort(servers)
	servers = slices.Compact(servers)
	switch {
	case o.UnsafeSync:
		return nil
	case o.System == nil:
		return surgetank.FieldErrorf("system", "a connection of the NATS system account is needed to check that all servers sync always")
	}
	return checkServers(ctx, o.System, servers, s.timeout)
}

// waitInfo reads a stream's state, if needed after the election of its leader.
func (s *Stream) waitInfo(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	began := s.clock.Passed()
	for {
		info, err := s.info(ctx, stream)
		var e *apiError
		if err == nil || ctx.Err() != nil || errors.As(err, &e) && e.ErrCode == codeNoStream || s.clock.Passed()-began > checkFor {
			return info, err
		}
		s.Wait(ctx, checkPause)
	}
}

// replicas returns the names of the servers with a replica.
func replicas(info *jetstream.StreamInfo) (names []string) {
	if info.Cluster == nil {
		return nil
	}
	if info.Cluster.Leader != "" {
		names = append(names, info.Cluster.Leader)
	}
	for _, p := range info.Cluster.Replicas {
		names = append(names, p.Name)
	}
	return names
}
