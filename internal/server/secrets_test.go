package server

import (
	"bytes"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/surgetank/surgetank/test/hostile"
)

// record is a log writer for many goroutines.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

// TestSecretsStayInside uses right and wrong passwords in every possible way on both doors, with
// the most detailed log. No password may be in the log, in an answer, or in a file.
func TestSecretsStayInside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	c := local(dir)
	c.AMQP = "127.0.0.1:0"
	var log record
	s, err := Start(t.Context(), Options{Config: c, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + s.Addresses().HTTP
	const right, wrong, old, dsn = "r1ght-Passw0rd", "wr0ng-Passw0rd", "0ld-Passw0rd", "dsn-Passw0rd"
	answers := ""
	ask := func(method, path, user, password, body string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		if user != "" {
			req.SetBasicAuth(user, password)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		if _, err := b.ReadFrom(resp.Body); err != nil {
			t.Fatal(err)
		}
		answers += resp.Status + b.String() + "\n"
	}
	ask("PUT", "/v1/users/ann", "", "", `{"password":"`+old+`","tags":["administrator"]}`)
	ask("PUT", "/v1/users/ann", "", "", `{"password":"`+right+`"}`)
	ask("PUT", "/v1/users/bad", "", "", `{"password":"`+wrong+`","tags":["nonsense"]}`)
	ask("PUT", "/v1/users/bad", "", "", `{"passwort":"`+wrong+`"}`)
	ask("PUT", "/v1/users/bad", "", "", `{"password":"`+wrong+`"`)
	ask("PUT", "/v1/queues/q", "", "", `{}`)
	ask("PUT", "/v1/sinks/rows", "", "", `{"queue":"q","postgres":{"dsn":"postgres://u:`+dsn+`@127.0.0.1:1/db","table":"t","columns":{"a":"$.a"}}}`)
	ask("PUT", "/v1/sinks/rows", "", "", `{"queue":"q","postgres":{"dsn":"postgres://u:`+dsn+`@127.0.0.1:99999/db%zz","table":"t","columns":{"a":"$.a"}}}`)
	ask("GET", "/v1/sinks", "", "", "")
	ask("GET", "/v1/whoami", "ann", right, "")
	ask("GET", "/v1/whoami", "ann", wrong, "")
	ask("GET", "/v1/users/ann", "ann", right, "")
	ask("GET", "/v1/meta/auth", "ann", right, "")
	ask("GET", "/metrics", "ann", right, "")
	door := hostile.AMQP{Dial: func() (net.Conn, error) { return net.Dial("tcp", s.Addresses().AMQP) }, User: "ann", Password: wrong, Patience: 10 * time.Second}
	if err := door.Refused(); err != nil {
		t.Error(err)
	}
	stop(t, s)
	if !strings.Contains(answers, "201") || !strings.Contains(log.String(), "login refused") {
		t.Fatalf("the test does not reach what it is about:\n%s%s", answers, log.String())
	}
	for what, text := range map[string]string{"the log": log.String(), "an answer": answers} {
		for _, secret := range []string{right, wrong, old, dsn, "argon2id"} {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s shows the secret %q: …%s…", what, secret, text[max(0, i-100):min(len(text), i+60)])
			}
		}
	}
	// Passwords are stored as hashes. A sink's login is stored in files that other users cannot
	// read.
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("others can reach %s: %v", path, info.Mode())
		}
		if d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path)
		for _, secret := range []string{right, wrong, old} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s holds the password %q", path, secret)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
