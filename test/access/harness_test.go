package access

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/test/kit/client"
	"github.com/surgetank/surgetank/test/kit/inprocess"
	"github.com/surgetank/surgetank/test/kit/proxy"
)

var (
	attackers = flag.Int("attackers", 6, "how many guess passwords at a time")
	logins    = flag.Int("logins", 2, "how many users log in for the first time meanwhile")
)

// rig is a server and its clients.
type rig struct {
	t     *testing.T
	http  string // HOST:PORT
	amqp  string
	token string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	s := inprocess.Start(t)
	return &rig{t, s.HTTP, s.AMQP, s.Token}
}

// role is a kind of client.
type role struct {
	name       string
	user, pass string // for HTTP and AMQP; if both are empty, the client does not log in
	tags       []string
	perm       *auth.Permission
}

// plainClient sends all HTTP requests.
var plainClient = &http.Client{Timeout: time.Minute}

// ask sends one HTTP request and returns the status and the answer.
func (r *rig) ask(who role, method, path, body string) (int, string) {
	r.t.Helper()
	status, answer, err := send(r.t.Context(), r.http, who, method, path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	return status, answer
}

func send(ctx context.Context, address string, who role, method, path, body string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	switch {
	case path == "/v1/publish":
		req.Header.Set("Content-Type", "application/x-ndjson")
	case strings.HasPrefix(body, "{"):
		req.Header.Set("Content-Type", "application/json")
	}
	if who.user != "" || who.pass != "" {
		req.SetBasicAuth(who.user, who.pass)
	}
	resp, err := plainClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, err = io.Copy(&b, resp.Body)
	return resp.StatusCode, b.String(), err
}

// machine returns the role of a program on the server's machine, which logs in with the local
// token.
func (r *rig) machine() role { return role{name: "this machine", pass: r.token} }

// must sends a request with the local token, and fails the test if the server refuses the request.
func (r *rig) must(method, path, body string) string {
	r.t.Helper()
	status, answer := r.ask(r.machine(), method, path, body)
	if status/100 != 2 {
		r.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	return answer
}

// enrol creates a role's user.
func (r *rig) enrol(who role) {
	r.t.Helper()
	if who.user == "" {
		return
	}
	spec, err := json.Marshal(map[string]any{"password": who.pass, "tags": append([]string{}, who.tags...)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.must("PUT", "/v1/users/"+who.user, string(spec))
	if who.perm != nil {
		p, err := json.Marshal(who.perm)
		if err != nil {
			r.t.Fatal(err)
		}
		r.must("PUT", "/v1/vhosts/%2F/permissions/"+who.user, string(p))
	}
}

// connect opens an AMQP connection.
func (r *rig) connect(address, user, pass string) (*amqp.Connection, error) {
	return client.Connect(address, client.Options{User: user, Password: pass, Patience: time.Minute})
}

// forward starts a proxy that forwards bytes and adds nothing about its clients, as TCP forwarders
// do. It returns the proxy's address.
func (r *rig) forward(to string) string {
	r.t.Helper()
	p, err := proxy.New(func() string { return to }, 1)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(p.Close)
	return p.Address()
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	plainClient.CloseIdleConnections()
	os.Exit(code)
}
