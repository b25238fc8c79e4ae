package jetlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/jetlog/fenced"
	"github.com/surgetank/surgetank/internal/natstest"
)

// put appends entries and waits for them.
func put(t *testing.T, l *Log, datas ...[]byte) (at []commitlog.Offset) {
	t.Helper()
	results := make(chan error, len(datas))
	at = make([]commitlog.Offset, len(datas))
	for i, d := range datas {
		l.Append(d, func(o commitlog.Offset, err error) {
			at[i] = o
			results <- err
		})
	}
	for range datas {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	return at
}

// fill makes n different entries.
func fill(n, size int) (list [][]byte) {
	for i := range n {
		list = append(list, bytes.Repeat([]byte{byte(i + 1)}, size))
	}
	return list
}

// expect reads a replay, which must return the entries.
func expect(t *testing.T, replay commitlog.Replay, want [][]byte) {
	t.Helper()
	for i := 0; ; i++ {
		e, err := replay.Next()
		if errors.Is(err, io.EOF) {
			if i != len(want) {
				t.Fatalf("%d entries, want %d", i, len(want))
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if i >= len(want) || !bytes.Equal(e.Data, want[i]) {
			t.Fatalf("entry %d at %d has %d bytes that were not appended", i, e.Offset, len(e.Data))
		}
	}
}

func closeLog(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// leaderFirst is a stream whose nearest replica is the leader.
type leaderFirst struct{ fenced.Stream }

func (l leaderFirst) Read(ctx context.Context, source int, from, to uint64) ([]fenced.Stored, error) {
	if source == nearest {
		source = leader
	}
	return l.Stream.Read(ctx, source, from, to)
}

// TestDamagedReplica: one bit in a file of one server is wrong, and this server becomes the leader.
// It lacks records and says so of none. An owner reads them from other servers, in a replay and
// later.
func TestDamagedReplica(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 30 MB")
	}
	t.Parallel() // with TestLeaderChanges, because both have a cluster of their own and wait a lot
	c := natstest.Start(t, natstest.Options{Servers: 3})
	r := newRig(t, c)
	replay, l, err := open(t.Context(), r.options(), 0)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, replay, nil)
	entries := fill(100, 100<<10) // more than one block of 8 MB
	at := put(t, l, entries...)
	closeLog(t, l)
	c.Current(r.nc, logStream(r.id))
	const bad = 1
	c.Halt(bad)
	flip(t, filepath.Join(c.Store(bad, logStream(r.id)), "msgs"))
	c.Boot(bad)
	c.Current(r.nc, logStream(r.id))
	s, err := newStream(r.nc, r.id, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	missing, wrong := 0, 0
	for range 5 { // the leader can change in between
		c.Lead(r.nc, logStream(r.id), bad)
		for i, pos := range at {
			got, err := s.Read(t.Context(), leader, uint64(pos), uint64(pos))
			switch {
			case errors.Is(err, fenced.ErrMissing):
				missing++
			case err == nil && !bytes.HasSuffix(got[0].Data, entries[i]):
				wrong++
			}
		}
		if missing+wrong > 0 {
			break
		}
	}
	// 0 and 0 mean that the server has repaired its file. An owner reads everything then, too.
	t.Logf("of %d records, the server with the damaged file lacks %d and has %d wrong", len(at), missing, wrong)
	o := r.options()
	o.CacheBytes = 1
	o.stream = func(s fenced.Stream) fenced.Stream { return leaderFirst{s} }
	replay, l, err = open(t.Context(), o, 0)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, replay, entries)
	for i, pos := range at {
		data, err := l.Read(pos)
		if err != nil || !bytes.Equal(data, entries[i]) {
			t.Fatalf("Read(%d): %d bytes, %v", pos, len(data), err)
		}
	}
	closeLog(t, l)
}

// flip changes one bit in the middle of the first block in a directory, which must not be the last
// one. A server repairs the last block.
func flip(t *testing.T, dir string) {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(dir, "*.blk"))
	if err != nil || len(blocks) < 2 {
		t.Fatalf("the blocks in %s are %v: %v", dir, blocks, err)
	}
	file := filepath.Join(dir, "1.blk")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 4
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// lacking is a stream whose sources lack a record.
type lacking struct {
	fenced.Stream
	at      uint64
	sources map[int]bool // nil: all
}

func (l *lacking) Read(ctx context.Context, source int, from, to uint64) ([]fenced.Stored, error) {
	got, err := l.Stream.Read(ctx, source, from, to)
	if err != nil || l.sources != nil && !l.sources[source] {
		return got, err
	}
	var out []fenced.Stored
	for _, s := range got {
		if s.At != l.at {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return nil, fenced.ErrMissing
	}
	return out, nil
}

// TestHole: a record that one source lacks is read from another one. If all lack it, the log does
// not open, and the error names the position.
func TestHole(t *testing.T) {
	r := newRig(t, calm())
	replay, l, err := open(t.Context(), r.options(), 0)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, replay, nil)
	entries := fill(20, 1000)
	at := put(t, l, entries...)
	closeLog(t, l)
	for _, sources := range []map[int]bool{{nearest: true}, {leader: true}, {nearest: true, leader: true}, nil} {
		o := r.options()
		o.stream = func(s fenced.Stream) fenced.Stream { return &lacking{s, uint64(at[7]), sources} }
		replay, l, err := open(t.Context(), o, 0)
		if err != nil {
			t.Fatal(err)
		}
		if sources != nil {
			expect(t, replay, entries)
			closeLog(t, l)
			continue
		}
		for err == nil {
			_, err = replay.Next()
		}
		if surgetank.CodeOf(err) != surgetank.CodeCorrupt || !errors.Is(err, commitlog.ErrCorrupt) || !bytes.Contains([]byte(err.Error()), fmt.Appendf(nil, "position %d", at[7])) {
			t.Errorf("a hole on all replicas: %v", err)
		}
		closeLog(t, l)
	}
}

// TestSnapshotsAndTrim: the log is trimmed only behind a durable snapshot. A new owner opens the
// log from the snapshot. Older snapshots and the rest of interrupted ones are removed.
func TestSnapshotsAndTrim(t *testing.T) {
	r := newRig(t, calm())
	replay, l, err := open(t.Context(), r.options(), 0)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, replay, nil)
	first := func() uint64 {
		t.Helper()
		b, err := l.stream.Bounds(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return b.First
	}
	entries := fill(30, 2000)
	at := put(t, l, entries...)
	if err := l.Trim(at[20]); err != nil || first() != 1 {
		t.Fatalf("a trim without a snapshot: the stream begins with %d, %v", first(), err)
	}
	state := bytes.Repeat([]byte("state"), 300<<10)
	save := func(at commitlog.Offset) error {
		return l.Snapshots().Save(at, func(w io.Writer) error { _, err := w.Write(state); return err })
	}
	cause := errors.New("interrupted")
	if err := l.Snapshots().Save(at[3], func(w io.Writer) error { // leaves no manifest
		if _, err := w.Write(state); err != nil {
			return err
		}
		return cause
	}); !errors.Is(err, cause) {
		t.Fatal(err)
	}
	if err := l.stream.PutSnapshot(t.Context(), fmt.Sprintf("chunk.%020d.dead.0", at[2]), []byte("rest of an owner that died")); err != nil {
		t.Fatal(err)
	}
	if err := save(at[10]); err != nil || first() != uint64(at[10])+1 {
		t.Fatalf("after a snapshot at %d the stream begins with %d: %v", at[10], first(), err)
	}
	for _, i := range []int{15, 25} {
		if err := save(at[i]); err != nil {
			t.Fatal(err)
		}
	}
	if first() != uint64(at[20]) {
		t.Errorf("the stream begins with %d, and the trim was before %d", first(), at[20])
	}
	if _, err := l.Read(at[19]); !errors.Is(err, commitlog.ErrTrimmed) {
		t.Errorf("reading a trimmed entry gave %v", err)
	}
	names, err := l.stream.SnapshotNames(t.Context())
	if err != nil || len(names) != 2*4 { // of the two newest: three chunks and a manifest
		t.Errorf("the snapshots have the pieces %v: %v", names, err)
	}
	more := put(t, l, fill(3, 10)...)
	closeLog(t, l)

	l, err = Acquire(t.Context(), r.options())
	if err != nil {
		t.Fatal(err)
	}
	from, body, err := l.Snapshots().Latest()
	if err != nil || from != at[25] {
		t.Fatalf("the newest snapshot is at %d, want %d: %v", from, at[25], err)
	}
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, state) {
		t.Fatalf("the snapshot has %d bytes, want %d: %v", len(got), len(state), err)
	}
	if replay, err = l.Open(t.Context(), from); err != nil {
		t.Fatal(err)
	}
	expect(t, replay, append(entries[26:], fill(3, 10)...))
	for i, pos := range at[20:] { // entries before the snapshot are read, too
		if data, err := l.Read(pos); err != nil || !bytes.Equal(data, entries[20+i]) {
			t.Errorf("Read(%d): %d bytes, %v", pos, len(data), err)
		}
	}
	if err := save(more[2]); err != nil {
		t.Fatal(err)
	}
	if err := l.Trim(more[2] + 1); err != nil || first() != uint64(more[2])+1 {
		t.Errorf("the stream begins with %d: %v", first(), err)
	}
	closeLog(t, l)
	// The log cannot be replayed without its snapshot. The caller must look for it again.
	if _, _, err := open(t.Context(), r.options(), 0); surgetank.CodeOf(err) != surgetank.CodeUnavailable {
		t.Errorf("opening a trimmed log from its beginning gave %v", err)
	}
	if replay, l, err = open(t.Context(), r.options(), more[2]); err != nil {
		t.Fatal(err)
	}
	expect(t, replay, nil)
	closeLog(t, l)
}

// TestSettings: streams with which confirmed entries could be lost are refused, and the error names
// the setting.
func TestSettings(t *testing.T) {
	r := newRig(t, calm())
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	for setting, change := range map[string]func(*jetstream.StreamConfig){ // unordered: each has streams of its own
		"num_replicas":         func(c *jetstream.StreamConfig) { c.Replicas = 1 },
		"max_age":              func(c *jetstream.StreamConfig) { c.MaxAge = 3600e9 },
		"discard":              func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld },
		"allow_direct":         func(c *jetstream.StreamConfig) { c.AllowDirect = false },
		"deny_delete":          func(c *jetstream.StreamConfig) { c.DenyDelete = false },
		"persist_mode":         func(c *jetstream.StreamConfig) { c.PersistMode, c.Replicas = jetstream.AsyncPersistMode, 1 },
		"storage":              func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage },
		"max_msgs_per_subject": func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 10 },
	} {
		id := "set_" + setting
		log, snap := streams(Config{ID: id})
		change(&log)
		for _, config := range []jetstream.StreamConfig{log, snap} {
			if _, err := js.CreateStream(t.Context(), config); err != nil {
				t.Fatalf("%s: %v", setting, err)
			}
		}
		o := r.options()
		o.ID = id
		_, err := Acquire(t.Context(), o)
		if surgetank.CodeOf(err) != surgetank.CodeInvalid || !bytes.Contains([]byte(err.Error()), []byte(setting)) {
			t.Errorf("a stream with another %s: %v", setting, err)
		}
	}
	o := r.options()
	o.ID = "missing"
	if _, err := Acquire(t.Context(), o); surgetank.CodeOf(err) != surgetank.CodeUnavailable {
		t.Errorf("a stream that does not exist: %v", err)
	}
	if err := Create(t.Context(), r.nc, Config{ID: "a.b"}); surgetank.CodeOf(err) != surgetank.CodeInvalid {
		t.Errorf("an id with a dot: %v", err)
	}
}

// TestServersSync: servers that do not sync always are refused, unless the operator allows them.
func TestServersSync(t *testing.T) {
	r := newRig(t, calm())
	system := r.cluster.System()
	defer system.Close()
	o := r.options()
	o.UnsafeSync, o.System = false, system
	l, err := Acquire(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	o.System = nil
	if _, err := Acquire(t.Context(), o); surgetank.CodeOf(err) != surgetank.CodeInvalid {
		t.Errorf("without a connection of the system account: %v", err)
	}
	o.System = r.nc
	if _, err := Acquire(t.Context(), o); err == nil {
		t.Error("a connection of another account cannot read the servers' settings, and was accepted")
	}

	c := natstest.Start(t, natstest.Options{Servers: 1, NoSync: true})
	lazy := connect(t, c.URLs())
	if err := Create(t.Context(), lazy, Config{ID: "lazy", Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	o = Options{Conn: lazy, System: c.System(), ID: "lazy", UnsafeReplicas: true}
	defer o.System.Close()
	if _, err := Acquire(t.Context(), o); surgetank.CodeOf(err) != surgetank.CodeInvalid || !bytes.Contains([]byte(fmt.Sprint(err)), []byte("sync_interval: always")) {
		t.Errorf("a server that does not sync: %v", err)
	}
	o.UnsafeSync = true
	if l, err = Acquire(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
}
