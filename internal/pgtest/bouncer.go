package pgtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Bouncer runs a PgBouncer in front of the server until the test ends. The returned function
// converts the DSN of a database to a DSN through the PgBouncer. mode is its pool_mode. Each user
// has at most size connections to the server.
func (s *Server) Bouncer(t testing.TB, mode string, size int) func(dsn string) string {
	t.Helper()
	bin, err := exec.LookPath("pgbouncer")
	for _, p := range []string{"/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer"} {
		if err != nil {
			bin, err = exec.LookPath(p)
		}
	}
	if err != nil {
		err = fmt.Errorf("no pgbouncer in PATH or /usr/sbin; install it (Debian: apt-get install pgbouncer)")
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED, nothing was tested: %v", err)
	}
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pgtest-bouncer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	files := map[string]string{"users.txt": "\"postgres\" \"\"\n", "bouncer.ini": fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = %s
default_pool_size = %d
max_client_conn = 200
`, s.port, port, filepath.Join(dir, "users.txt"), mode, size)}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(bin, filepath.Join(dir, "bouncer.ini"))
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &log, &log
	unprivileged(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { _ = cmd.Wait(); close(gone) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // the process has possibly ended already
		<-gone
		if t.Failed() {
			t.Logf("pgbouncer said:\n%.20000s", log.Bytes())
		}
	})
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			break
		}
		select {
		case <-gone:
			t.Fatalf("pgbouncer ended:\n%s", log.Bytes())
		case <-ctx.Done():
			t.Fatal("pgbouncer does not listen")
		case <-time.After(20 * time.Millisecond):
		}
	}
	return func(dsn string) string { return strings.Replace(dsn, s.Addr(), addr, 1) }
}
