package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/surgetank/surgetank/internal/server/child"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"surgetank": func() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs testdata/*.txt. Besides testscript's commands the scripts have
//
//	server start [flags]   start a server on data/ and a free port, and set SURGETANK_SERVER
//	server kill            kill -9 the server
//	server stop            stop the server in order
//	flip DIR TEXT          flip a bit of TEXT in DIR's files
//	waitfor COMMAND RE     repeat a command until its output matches
//	anonymous METHOD PATH STATUS   send a request without a login
//	withuser NAME PASSWORD         put a user into SURGETANK_SERVER
//	numbers COUNT FILE             write COUNT lines, each its number
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			h := &host{dir: e.WorkDir}
			e.Values[hostKey{}] = h
			e.Defer(h.end)
			e.Setenv("SHARDS", strconv.Itoa(shardstest.N))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"server": serverCommand, "waitfor": waitfor, "flip": flip, "write": write,
			"anonymous": anonymous, "withuser": withUser, "numbers": numbers, "nack": nack, "put": put},
		RequireExplicitExec: true,
	})
}

type hostKey struct{}

// host owns a script's server.
type host struct {
	dir    string
	server *child.Server
	log    *os.File
}

func (h *host) end() {
	if h.server != nil {
		h.server.Kill()
	}
	if h.log != nil {
		h.log.Close()
	}
}

func serverCommand(ts *testscript.TestScript, neg bool, args []string) {
	h := ts.Value(hostKey{}).(*host)
	if neg || len(args) == 0 {
		ts.Fatalf("usage: server start|kill|stop")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	switch args[0] {
	case "start":
		if h.server == nil {
			var err error
			h.log, err = os.Create(filepath.Join(h.dir, "server.log"))
			ts.Check(err)
			binary, err := lookPath(ts.Getenv("PATH"))
			ts.Check(err)
			h.server = child.New(binary, filepath.Join(h.dir, "data"), h.log, append([]string{"--amqp", "off", "--shards", strconv.Itoa(shardstest.N)}, args[1:]...)...)
			h.server.Dir = h.dir
		}
		if err := h.server.Start(ctx); err != nil {
			log, _ := os.ReadFile(filepath.Join(h.dir, "server.log")) // an error of reading is less important
			ts.Fatalf("%v\n%s", err, log)
		}
		ts.Setenv("SURGETANK_SERVER", h.server.Ready.HTTP)
	case "kill":
		h.server.Kill()
	case "stop":
		ts.Check(h.server.Stop(ctx))
	default:
		ts.Fatalf("server %s is not known", args[0])
	}
}

// write NAME TEXT creates a file from a text with Go's escapes, for bytes that a script cannot
// contain.
func write(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: write NAME TEXT")
	}
	text, err := strconv.Unquote(`"` + args[1] + `"`)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip DIR TEXT")
	}
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "*"))
	ts.Check(err)
	for _, name := range files {
		data, err := os.ReadFile(name)
		ts.Check(err)
		if i := bytes.Index(data, []byte(args[1])); i >= 0 {
			data[i] ^= 1
			ts.Check(os.WriteFile(name, data, 0o600))
			return
		}
	}
	ts.Fatalf("%q stands in none of %d files", args[1], len(files))
}

// waitfor repeats a command that asks the server, until its output matches. A script has no other
// signal for work that the server does by itself.
func waitfor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitfor 'exec COMMAND…' RE")
	}
	want, err := regexp.Compile(args[1])
	ts.Check(err)
	words := strings.Fields(args[0])
	deadline := time.Now().Add(time.Minute)
	for {
		err := ts.Exec(words[1], words[2:]...)
		out := ts.ReadFile("stdout")
		if err == nil && want.MatchString(out) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s never matched %s; last:\n%s", args[0], args[1], out)
		}
		runtime.Gosched()
	}
}

// lookPath finds the surgetank program in a script's own PATH.
func lookPath(path string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		if p, err := exec.LookPath(filepath.Join(dir, "surgetank")); err == nil {
			return p, nil
		}
	}
	return "", exec.ErrNotFound
}

func anonymous(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: anonymous METHOD PATH STATUS")
	}
	req, err := http.NewRequest(args[0], ts.Getenv("SURGETANK_SERVER")+args[1], nil)
	ts.Check(err)
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	resp.Body.Close()
	if got := strconv.Itoa(resp.StatusCode); got != args[2] {
		ts.Fatalf("%s %s without a login: %s, want %s", args[0], args[1], got, args[2])
	}
}

func withUser(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: withuser NAME PASSWORD")
	}
	u, err := url.Parse(ts.Getenv("SURGETANK_SERVER"))
	ts.Check(err)
	u.User = url.UserPassword(args[0], args[1])
	ts.Setenv("SURGETANK_SERVER", u.String())
}

func numbers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: numbers COUNT FILE")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, i)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(b.String()), 0o600))
}
