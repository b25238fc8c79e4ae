package pgtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Template makes a small data directory in dir, which must not exist. NewFrom starts servers on
// copies of it. A copy needs a tenth of the time of initdb.
func Template(bin, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := giveAway(dir); err != nil {
		return err
	}
	init := exec.Command(filepath.Join(bin, "initdb"), "-D", dir, "-U", "postgres", "-A", "trust", "-E", "UTF8",
		"--locale=C", "--no-sync", "--no-instructions", "--wal-segsize=1")
	init.Dir = dir
	unprivileged(init)
	if out, err := init.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// NewFrom starts a server on a copy of a template, in a new directory below parent. settings are
// further settings (name=value). fsync is off unless a setting turns it on, because the faults to
// test do not stop the operating system. The caller must close the server.
func NewFrom(bin, template, parent string, settings ...string) (*Server, error) {
	dir, err := os.MkdirTemp(parent, "pg-")
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, dir: dir, data: filepath.Join(dir, "data"), log: &tail{}}
	s.more = append([]string{"fsync=off", "max_wal_size=64MB", "min_wal_size=4MB", "wal_keep_size=16MB", "shared_buffers=8MB"}, settings...)
	fail := func(err error) (*Server, error) {
		s.Close()
		return nil, err
	}
	if err := giveAway(dir); err != nil {
		return fail(err)
	}
	if err := CopyTree(template, s.data); err != nil {
		return fail(err)
	}
	if s.port, err = freePort(); err != nil {
		return fail(err)
	}
	if err := s.Start(); err != nil {
		return fail(err)
	}
	return s, nil
}

// CopyTree copies the directory from, with owners, modes and times, to the directory to, which must
// not exist.
func CopyTree(from, to string) error {
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copying %s: %w\n%s", from, err, out)
	}
	return nil
}

// DataDir returns the server's data directory. It may be copied and replaced while the server is
// stopped.
func (s *Server) DataDir() string { return s.data }

// Words returns the last lines of the server's log.
func (s *Server) Words() string { return s.log.String() }

// Running reports whether the server's process runs.
func (s *Server) Running() bool {
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.gone:
		return false
	default:
		return true
	}
}

// Standby starts a standby of s on a port of its own. The caller must close it.
func (s *Server) Standby() (*Server, error) {
	b := &Server{bin: s.bin, dir: s.dir, data: s.data + "-standby", log: &tail{}, more: s.more}
	backup := exec.Command(filepath.Join(s.bin, "pg_basebackup"), "-d", s.DSN("postgres"), "-D", b.data, "-R", "-X", "stream", "-c", "fast", "--no-sync")
	backup.Dir = s.dir
	unprivileged(backup)
	if out, err := backup.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("pg_basebackup: %w\n%s", err, out)
	}
	var err error
	if b.port, err = freePort(); err != nil {
		return nil, err
	}
	if err := b.Start(); err != nil {
		return nil, err
	}
	return b, nil
}

// StopFollowing disconnects a standby from its primary: the standby stays unchanged while the
// primary continues. It returns when the connection between them has ended.
func (s *Server) StopFollowing(ctx context.Context) error {
	conn, err := pgconn.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if err := run(ctx, conn, "ALTER SYSTEM SET primary_conninfo = ''"); err != nil {
		return err
	}
	if err := run(ctx, conn, "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	for {
		rows, err := Query(s.DSN("postgres"), "SELECT 1 FROM pg_stat_wal_receiver")
		if err != nil || len(rows) == 0 {
			return err
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TakeOver kills s, promotes its standby and restarts the standby on the port of s. From then on s
// represents the promoted server.
func (s *Server) TakeOver(ctx context.Context, standby *Server) error {
	if err := s.Kill(); err != nil {
		return err
	}
	conn, err := pgconn.Connect(ctx, standby.DSN("postgres"))
	if err != nil {
		return err
	}
	err = run(ctx, conn, "SELECT pg_promote(true, 60)")
	_ = conn.Close(ctx)
	if err != nil {
		return err
	}
	if err := standby.Stop(); err != nil {
		return err
	}
	s.data = standby.data
	return s.Start()
}

// End kills a standby. Closing the primary removes the standby's directory.
func (s *Server) End() { _ = s.Kill() }

func run(ctx context.Context, conn *pgconn.PgConn, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	_, err := conn.Exec(ctx, sql).ReadAll()
	return err
}
