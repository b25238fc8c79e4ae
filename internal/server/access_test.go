package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/internal/config"
)

// TestSQLiteFilesStayInTheirDirectory: an administrator on the network may only name files in the
// directory for SQLite files. A program on the server's machine may name any file if there are no
// users yet, or if it logs in with the local token.
func TestSQLiteFilesStayInTheirDirectory(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need rights on Windows")
	}
	dir := t.TempDir()
	c := local(filepath.Join(dir, "data"))
	s := start(t, Options{Config: c})
	base := "http://" + s.Addresses().HTTP
	put := func(user, password, name, path string) int {
		t.Helper()
		spec, err := json.Marshal(map[string]any{"queue": "q", "sqlite": map[string]any{"path": path, "table": "t", "create_table": true, "columns": map[string]string{"a": "$.a"}}})
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), "PUT", base+"/v1/sinks/"+name, strings.NewReader(string(spec)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if user != "" || password != "" {
			req.SetBasicAuth(user, password)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	request(t, "PUT", base+"/v1/queues/q", "{}")
	if code := put("", "", "early", filepath.Join(dir, "early.db")); code != 201 {
		t.Errorf("before there are users: %d", code)
	}
	if code, answer := request(t, "PUT", base+"/v1/users/ada", `{"password":"right","tags":["administrator"]}`); code != 201 {
		t.Fatal(code, answer)
	}
	files := filepath.Join(c.Data, "sqlite")
	if err := os.MkdirAll(files, 0o700); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"out": dir, "nowhere": filepath.Join(dir, "made-later"), "in": files} {
		if err := os.Symlink(to, filepath.Join(files, link)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]int{
		filepath.Join(files, "a.db"):                 201,
		filepath.Join(files, "deep", "er", "b.db"):   201,
		filepath.Join(files, "in", "c.db"):           201,
		files + "/../outside.db":                     403,
		files + "/x/../../outside.db":                403,
		filepath.Join(files, "out", "d.db"):          403,
		filepath.Join(files, "nowhere"):              403,
		filepath.Join(files, "nowhere", "e.db"):      403,
		files:                                        403,
		files + "x.db":                               403,
		filepath.Join(dir, "elsewhere.db"):           403,
		"relative.db":                                403,
		"file:" + filepath.Join(dir, "f.db"):         403,
		"file://" + filepath.Join(files, "../g.db"):  403,
		filepath.Join(c.Data, "log", "00000001.seg"): 403,
	} {
		if code := put("ada", "right", "s", path); code != want && !(want == 201 && code == 200) {
			t.Errorf("%s over the network: %d, want %d", path, code, want)
		}
	}
	token, err := os.ReadFile(filepath.Join(c.Data, "local.token"))
	if err != nil {
		t.Fatal(err)
	}
	if code := put("", strings.TrimSpace(string(token)), "late", filepath.Join(dir, "late.db")); code != 201 {
		t.Errorf("a request from this machine got status %d", code)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.db")); len(left) != 2 { // one file before and one after there are users
		t.Errorf("outside of the directory there are %v", left)
	}
}

// TestSQLiteDirIsTheOperators: the configuration file names another directory, or allows any.
func TestSQLiteDirIsTheOperators(t *testing.T) {
	for setting, want := range map[string]bool{"": false, "any": true, "DIR": true} {
		dir := t.TempDir()
		text := "server: {}"
		if setting != "" {
			text = fmt.Sprintf("server: {sqlite_dir: %q, trusted_proxies: [10.0.0.1, 192.168.0.0/16, \"2001:db8::/32\"]}", strings.ReplaceAll(setting, "DIR", dir))
		}
		f, err := config.Parse("f.yaml", []byte(text), os.LookupEnv)
		if err != nil {
			t.Fatal(err)
		}
		if setting != "" && fmt.Sprint(f.Server.TrustedProxies) != "[10.0.0.1/32 192.168.0.0/16 2001:db8::/32]" {
			t.Errorf("trusted proxies: %v", f.Server.TrustedProxies)
		}
		k := &sinks{dir: f.Server.SQLiteDir}
		if k.dir == "" {
			k.dir = filepath.Join(t.TempDir(), "sqlite")
		}
		spec := fmt.Sprintf(`{"queue":"q","sqlite":{"path":%q,"table":"t","columns":{"a":"$.a"}}}`, filepath.Join(dir, "x.db"))
		if err := k.mayUse(nil, []byte(spec)); (err == nil) != want {
			t.Errorf("sqlite_dir %q: %v", setting, err)
		}
	}
	for _, bad := range []string{"0.0.0.0/0", "::/0", "proxy.example", "10.0.0.0/33"} {
		if _, err := config.Parse("f.yaml", []byte(fmt.Sprintf("server: {trusted_proxies: [%q]}", bad)), os.LookupEnv); err == nil {
			t.Errorf("trusted_proxies %s is taken", bad)
		}
	}
}
