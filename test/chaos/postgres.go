package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"time"

	"github.com/jackc/pgx/v5"
)

// errNoPostgres says that the machine has no PostgreSQL server programs.
var errNoPostgres = errors.New("PostgreSQL's server programs (initdb, postgres) are not installed; on Debian: apt-get install postgresql")

// postgres is a cluster of our own that can be killed and started again.
type postgres struct {
	bin, dir string
	port     int
	log      io.Writer
	cmd      *exec.Cmd
	exited   chan struct{}
}

// findPostgres gives the directory of the server programs, newest version first.
func findPostgres() (string, error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well formed
	sort.Sort(sort.Reverse(sort.StringSlice(dirs)))
	if p, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(p))
	}
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(d, "initdb")); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(d, "postgres")); err == nil {
			return d, nil
		}
	}
	return "", errNoPostgres
}

// newPostgres makes a cluster below dir. PostgreSQL refuses to run as root, so there it runs as an ordinary user.
func newPostgres(ctx context.Context, dir string, log io.Writer) (*postgres, error) {
	bin, err := findPostgres()
	if err != nil {
		return nil, err
	}
	p := &postgres{bin: bin, dir: filepath.Join(dir, "postgres"), log: log}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return nil, err
	}
	if err := giveTo(p.dir); err != nil {
		return nil, err
	}
	init := p.command(ctx, "initdb", "-D", p.dir, "-U", "chaos", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
	if err := init.Run(); err != nil {
		return nil, fmt.Errorf("initdb: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p.port = l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *postgres) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, program), args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = p.log, p.log, p.dir
	asOrdinaryUser(cmd)
	return cmd
}

func (p *postgres) dsn() string {
	return fmt.Sprintf("postgres://chaos@127.0.0.1:%d/postgres?sslmode=disable", p.port)
}

// start starts the server and returns when it takes connections. After a kill its processes may still hold the shared
// memory for a moment; then it ends by itself and is started again.
func (p *postgres) start(ctx context.Context) error {
	for {
		if p.exited == nil {
			// The durability settings are PostgreSQL's defaults, fsync among them.
			p.cmd = p.command(context.WithoutCancel(ctx), "postgres", "-D", p.dir, "-p", fmt.Sprint(p.port), "-k", p.dir,
				"-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=256MB", "-c", "max_wal_size=2GB")
			if err := p.cmd.Start(); err != nil {
				return err
			}
			exited := make(chan struct{})
			p.exited = exited
			go func(cmd *exec.Cmd) {
				_ = cmd.Wait() // how it ended is in its log
				close(exited)
			}(p.cmd)
		}
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		conn, err := pgx.Connect(try, p.dsn())
		cancel()
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-p.exited:
			p.exited = nil
		default:
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL did not start: %w (last: %w)", ctx.Err(), err)
		}
	}
}

// kill ends the server as a power failure would.
func (p *postgres) kill() {
	if p.exited == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may be gone already
	<-p.exited
	p.exited = nil
}
