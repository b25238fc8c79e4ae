package localtoken

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// privateBase keeps a test's tokens apart from those of running servers.
func privateBase(t *testing.T) {
	t.Helper()
	was := base
	t.Cleanup(func() { base = was })
	base = t.TempDir()
}

func address(t *testing.T, s string) net.Addr {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestFind: the token is found by each address that leads to the server on this machine, and by no
// other address.
func TestFind(t *testing.T) {
	privateBase(t)
	data := t.TempDir()
	for _, tc := range []struct {
		listens    string
		finds, not []string
	}{
		{"127.0.0.1:1001", []string{"127.0.0.1:1001", "localhost:1001", "LOCALHOST:1001", "[::ffff:127.0.0.1]:1001"},
			[]string{"127.0.0.1:1002", "127.0.0.2:1001", "[::1]:1001", "192.0.2.1:1001", "queue.example:1001", "localhost.example:1001", "127.0.0.1:../x"}},
		{"[::1]:1003", []string{"[::1]:1003", "localhost:1003"}, []string{"127.0.0.1:1003"}},
		{"0.0.0.0:1004", []string{"127.0.0.1:1004", "localhost:1004", "127.0.0.2:1004"}, []string{"192.0.2.1:1004"}},
		{"[::]:1005", []string{"127.0.0.1:1005", "[::1]:1005"}, nil},
	} {
		token, err := Publish(data, address(t, tc.listens))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := Read(filepath.Join(data, Name)); err != nil || !token.Is(text) {
			t.Errorf("%s: the data directory has %q, %v", tc.listens, text, err)
		}
		for _, a := range tc.finds {
			host, port, _ := net.SplitHostPort(a)
			if text, ok := Find(host, port); !ok || !token.Is(text) {
				t.Errorf("listening on %s: %s finds %q", tc.listens, a, text)
			}
		}
		for _, a := range tc.not {
			host, port, _ := net.SplitHostPort(a)
			if text, ok := Find(host, port); ok {
				t.Errorf("listening on %s: %s finds %q", tc.listens, a, text)
			}
		}
		if err := token.Remove(); err != nil {
			t.Fatal(err)
		}
		host, port, _ := net.SplitHostPort(tc.finds[0])
		if _, ok := Find(host, port); ok {
			t.Errorf("%s: the token is found after it was removed", tc.listens)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(data, "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestTokensAreTold: only the newest server's token is accepted. Guessed and empty tokens are
// refused.
func TestTokensAreTold(t *testing.T) {
	privateBase(t)
	data, a := t.TempDir(), address(t, "127.0.0.1:1001")
	old, err := Publish(data, a)
	if err != nil {
		t.Fatal(err)
	}
	token, err := Publish(data, a)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "x", old.text, token.text + "\n", strings.ToUpper(token.text)} {
		if token.Is(text) {
			t.Errorf("accepts %q", text)
		}
	}
	if (*Token)(nil).Is("") || new(Token).Is("") {
		t.Error("no token accepts no password")
	}
	if err := old.Remove(); err != nil { // an older server ends after the newer one started, and must not remove the newer token
		t.Fatal(err)
	}
	if text, ok := Find("127.0.0.1", "1001"); !ok || !token.Is(text) {
		t.Error("an older server took the newer one's files away")
	}
	if err := os.WriteFile(filepath.Join(data, Name), []byte("root:x:0:0:root:/root:/bin/bash\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := Read(filepath.Join(data, Name)); err == nil {
		t.Errorf("a file that is no token is read: %q", text)
	}
}

// TestFilesAreTheOwnersAlone: no other user can read a token, and a directory that other users may
// change is not used.
func TestFilesAreTheOwnersAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have the access rights of their directory")
	}
	privateBase(t)
	data := t.TempDir()
	if _, err := Publish(data, address(t, "127.0.0.1:1001")); err != nil {
		t.Fatal(err)
	}
	dir := runtimeDir(uid())
	for _, path := range []string{dir, filepath.Join(dir, "127.0.0.1_1001.token"), filepath.Join(data, Name)} {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, info.Mode())
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	token, err := Publish(data, address(t, "127.0.0.1:1002"))
	if err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a directory that others may change is used: %v", err)
	}
	if text, err := Read(filepath.Join(data, Name)); err != nil || !token.Is(text) {
		t.Errorf("the data directory's token is missing then: %v", err)
	}
}
