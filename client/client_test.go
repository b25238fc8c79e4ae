package client_test

import (
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/brokertest"
	"github.com/surgetank/surgetank/client"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/door/doortest"
	"github.com/surgetank/surgetank/internal/httpapi"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

// server is a Surgetank server in this process, over a broker in memory.
type server struct {
	url    string
	broker *embedded.Broker
	store  *auth.Store
	api    *httpapi.API
	http   *http.Server
	done   chan struct{}
}

func serve(t *testing.T, limits httpapi.Limits, wrap func(http.Handler) http.Handler) *server {
	t.Helper()
	b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
	if err != nil {
		t.Fatal(err)
	}
	store, err := auth.Open(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.PutVhost(t.Context(), "vhost", ""); err != nil {
		t.Fatal(err)
	}
	s := &server{broker: b, store: store, api: httpapi.New(httpapi.Options{Broker: doortest.Of(t, b), Auth: store, TrustLoopback: func() bool { return true }, Limits: limits}), done: make(chan struct{})}
	s.listen(t, "127.0.0.1:0", wrap)
	t.Cleanup(func() {
		s.api.Close()
		s.http.Close()
		<-s.done
		b.Close()
	})
	return s
}

// restart ends the server and starts one with the same broker and address. The new server knows
// none of the subscriptions.
func (s *server) restart(t *testing.T, between func()) {
	t.Helper()
	s.api.Close()
	s.http.Close()
	<-s.done
	between()
	s.done = make(chan struct{})
	s.api = httpapi.New(httpapi.Options{Broker: doortest.Of(t, s.broker), Auth: s.store, TrustLoopback: func() bool { return true }})
	s.listen(t, strings.TrimPrefix(s.url, "http://"), nil)
}

func (s *server) listen(t *testing.T, addr string, wrap func(http.Handler) http.Handler) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var h http.Handler = s.api
	if wrap != nil {
		h = wrap(h)
	}
	s.url, s.http = "http://"+ln.Addr().String(), httpapi.NewServer(h, httpapi.ServerLimits{}, nil)
	srv, done := s.http, s.done
	go func() { defer close(done); srv.Serve(ln) }()
}

func dial(t *testing.T, url string, o client.Options) *client.Client {
	t.Helper()
	c, err := client.Dial(url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestBroker(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) surgetank.Broker {
		return dial(t, serve(t, httpapi.Limits{}, nil).url, client.Options{})
	})
}

// The client must not bring the engine or other large packages into a program that uses it.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/surgetank/surgetank"
	for _, p := range strings.Fields(string(out)) {
		switch p {
		case module, module + "/client", module + "/internal/settings", module + "/internal/msgopt", module + "/internal/callback",
			module + "/internal/hidden", module + "/internal/door", module + "/internal/fullname":
		default:
			t.Errorf("package client links %s", p)
		}
	}
}
