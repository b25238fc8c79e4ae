// Package pgtest runs a temporary PostgreSQL server for tests. It has a data directory of its own,
// a free loopback port, and fsync on as in production. A test can stop, kill and restart it.
//
// The binaries come from PATH or a Debian package. If there are no binaries, tests are skipped with
// a message. With CI=true they fail.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Server is one PostgreSQL server. Only one goroutine at a time may call its methods.
type Server struct {
	bin  string // directory of the binaries
	dir  string
	data string   // the data directory: dir/data, or the one set by UseData
	more []string // additional settings as name=value; of one name, the last is used
	port int
	cmd  *exec.Cmd
	gone chan struct{} // closed when cmd has ended
	end  error         // exit error, set before gone is closed
	log  *tail
	next atomic.Int64
}

// startWait limits the start of a server, including its recovery after a kill.
const startWait = 2 * time.Minute

// Find returns the directory of PostgreSQL's binaries, of the newest version.
func Find() (string, error) {
	if p, err := exec.LookPath("initdb"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			return filepath.Dir(p), nil
		}
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/initdb", "/usr/pgsql-*/bin/initdb", "/opt/homebrew/opt/postgresql@*/bin/initdb"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			continue
		}
		sort.Slice(found, func(i, j int) bool {
			return len(found[i]) < len(found[j]) || len(found[i]) == len(found[j]) && found[i] < found[j]
		})
		return filepath.Dir(found[len(found)-1]), nil
	}
	return "", fmt.Errorf("no PostgreSQL found in PATH or /usr/lib/postgresql; install it (Debian: apt-get install postgresql)")
}

// Start runs a server until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	bin, err := Find()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED, nothing was tested: %v", err)
	}
	s, err := New(bin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// shared is the server of Shared.
var shared struct {
	once sync.Once
	s    *Server
	err  error
}

// Shared returns one server for all tests of a package. A test must not stop it. The package's
// TestMain must call CloseShared.
func Shared(t testing.TB) *Server {
	t.Helper()
	bin, err := Find()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED, nothing was tested: %v", err)
	}
	shared.once.Do(func() { shared.s, shared.err = New(bin) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.s
}

// CloseShared ends the server of Shared, if it was started.
func CloseShared() {
	if shared.s != nil {
		shared.s.Close()
	}
}

// New makes a data directory with the binaries in bin and starts a server on it. settings are
// further settings (name=value). The caller must close the server.
func New(bin string, settings ...string) (*Server, error) {
	dir, err := os.MkdirTemp("", "pgtest-")
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, dir: dir, data: filepath.Join(dir, "data"), log: &tail{}, more: settings}
	fail := func(err error) (*Server, error) {
		s.Close()
		return nil, err
	}
	if err := giveAway(dir); err != nil {
		return fail(err)
	}
	init := exec.Command(filepath.Join(bin, "initdb"), "-D", filepath.Join(dir, "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8",
		"--locale=C", "--no-sync", "--no-instructions")
	init.Dir = dir
	unprivileged(init)
	if out, err := init.CombinedOutput(); err != nil {
		return fail(fmt.Errorf("initdb: %w\n%s", err, out))
	}
	if s.port, err = freePort(); err != nil {
		return fail(err)
	}
	if err := s.Start(); err != nil {
		return fail(err)
	}
	return s, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Start restarts the server after Stop or Kill, and returns when it accepts connections.
func (s *Server) Start() error {
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	for {
		s.cmd = exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data, "-p", fmt.Sprint(s.port),
			"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=on", "-c", "max_connections=60",
			"-c", "log_checkpoints=off", "-c", "max_wal_size=2GB")
		for _, setting := range s.more {
			s.cmd.Args = append(s.cmd.Args, "-c", setting)
		}
		s.cmd.Dir = s.dir
		s.cmd.Stderr = s.log
		unprivileged(s.cmd)
		if err := s.cmd.Start(); err != nil {
			return err
		}
		s.gone = make(chan struct{})
		go func(cmd *exec.Cmd, gone chan struct{}) {
			s.end = cmd.Wait()
			close(gone)
		}(s.cmd, s.gone)
		err := s.await(ctx)
		if err == nil {
			return nil
		}
		// Processes of a killed server can still use its shared memory for a moment. In that case
		// try again.
		if log := s.log.take(); ctx.Err() != nil || !strings.Contains(log, "is still in use") {
			return fmt.Errorf("postgres did not start: %w\n%s", err, log)
		}
	}
}

// await waits until the server answers or has ended.
func (s *Server) await(ctx context.Context) error {
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		conn, err := pgconn.Connect(ctx, s.DSN("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.gone:
			s.cmd = nil
			return fmt.Errorf("it ended: %w", s.end)
		case <-ctx.Done():
			return err
		case <-retry.C:
		}
	}
}

// DSN returns the address of a database of the server.
func (s *Server) DSN(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", s.port, database)
}

// Addr returns the server's listening address.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// Database creates an empty database and returns its address.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test%d", s.next.Add(1))
	s.Exec(t, s.DSN("postgres"), "CREATE DATABASE "+name)
	return s.DSN(name)
}

// Exec runs statements.
func (s *Server) Exec(t testing.TB, dsn, sql string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Query returns the rows of a query as text; null is "<null>".
func (s *Server) Query(t testing.TB, dsn, sql string) [][]string {
	t.Helper()
	rows, err := Query(dsn, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return rows
}

// Query returns the rows of a query at an address as text; null is "<null>".
func Query(dsn, sql string) ([][]string, error) {
	ctx := context.Background()
	conn, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var out [][]string
	for _, r := range results {
		for _, row := range r.Rows {
			var text []string
			for _, v := range row {
				if v == nil {
					text = append(text, "<null>")
				} else {
					text = append(text, string(v))
				}
			}
			out = append(out, text)
		}
	}
	return out, nil
}

// Stop shuts the server down: it closes connections and writes all data.
func (s *Server) Stop() error {
	return s.signal(os.Interrupt)
}

// Kill ends the server and all its processes at once, as kill -9 does.
func (s *Server) Kill() error {
	if s.cmd == nil {
		return nil
	}
	children := childrenOf(s.cmd.Process.Pid)
	err := s.signal(os.Kill)
	for _, pid := range children {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill() // the process may already be gone
		}
	}
	return err
}

func (s *Server) signal(sig os.Signal) error {
	if s.cmd == nil {
		return nil
	}
	cmd := s.cmd
	s.cmd = nil
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-s.gone
	return nil
}

// Close kills the server and removes its directory.
func (s *Server) Close() {
	_ = s.Kill()
	_ = os.RemoveAll(s.dir) // an error does not matter: it is a temporary directory
}

// tail contains the last lines of the server's log.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.buf.Len() > 64<<10 {
		t.buf.Reset()
	}
	return t.buf.Write(p)
}

// take returns and clears the log.
func (t *tail) take() string {
	s := t.String()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Reset()
	return s
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
