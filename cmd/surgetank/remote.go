package main

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/client"
	"github.com/surgetank/surgetank/internal/localtoken"
)

// remote is the flags of every command that talks to a server.
type remote struct {
	Server    string `placeholder:"URL" default:"http://127.0.0.1:8080" env:"SURGETANK_SERVER" help:"Server to talk to (http://USER:PASSWORD@HOST:PORT). Default ${default}; environment ${env}."`
	TokenFile string `placeholder:"FILE" env:"SURGETANK_TOKEN_FILE" help:"The file local.token in the data directory of a server on this machine, in place of a user. Needed only where the server's own user or root is not recognised. Environment ${env}."`
}

// address is the server's URL.
func (r remote) address() (*url.URL, error) {
	u, err := url.Parse(r.Server)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, surgetank.FieldErrorf("server", "--server: want a URL such as http://127.0.0.1:8080") // without the text, which may contain a password
	}
	if r.TokenFile != "" && u.User == nil && !loopback(u.Hostname()) {
		return nil, surgetank.FieldErrorf("token-file", "--token-file is for a server on this machine, and %.80q is elsewhere: a token must not cross the network. Use --server http://USER:PASSWORD@HOST:PORT", u.Host)
	}
	return u, nil
}

// token returns the token of this machine's server at u. It returns "" if there is none that this
// user may read.
func (r remote) token(u *url.URL) (string, error) {
	if r.TokenFile != "" {
		text, err := localtoken.Read(r.TokenFile)
		if err != nil {
			return "", surgetank.FieldErrorf("token-file", "--token-file: %v; it is the file local.token in the server's data directory", err)
		}
		return text, nil
	}
	port := u.Port()
	if port == "" {
		if port = "80"; u.Scheme == "https" {
			port = "443"
		}
	}
	text, _ := localtoken.Find(u.Hostname(), port)
	return text, nil
}

// withToken is the transport of commands without a given user. It logs in with this machine's
// token, if there is one. A server makes a new token when it starts, and a command may outlive a
// restart. So a rejected request is sent again if the token has changed.
type withToken struct {
	remote
	next http.RoundTripper

	mu  sync.Mutex
	now string
}

// RoundTrip sends one request.
func (t *withToken) RoundTrip(req *http.Request) (*http.Response, error) {
	t.mu.Lock()
	token := t.now
	t.mu.Unlock()
	resp, err := t.send(req, token)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	fresh, terr := t.token(req.URL)
	if terr != nil || fresh == token || req.Body != nil && req.GetBody == nil {
		return resp, nil // the server's answer says what to do
	}
	t.mu.Lock()
	t.now = fresh
	t.mu.Unlock()
	_ = resp.Body.Close()
	if req.Body != nil {
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	return t.send(req, fresh)
}

func (t *withToken) send(req *http.Request, token string) (*http.Response, error) {
	if token != "" {
		req = req.Clone(req.Context())
		req.SetBasicAuth("", token)
	}
	return t.next.RoundTrip(req)
}

// transport returns the transport for a command's requests to u.
func (r remote) transport(u *url.URL) (http.RoundTripper, error) {
	next := http.DefaultTransport.(*http.Transport).Clone()
	next.MaxIdleConnsPerHost, next.DisableCompression = 64, true
	if u.User != nil {
		return next, nil
	}
	token, err := r.token(u)
	if err != nil {
		return nil, err
	}
	return &withToken{remote: r, next: next, now: token}, nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && a.Unmap().IsLoopback()
}

// dial connects to the server. A missing server is an error at once, because the user is waiting.
// Commands that must survive a restart retry by themselves, because they know which requests may be
// repeated.
func (r remote) dial() (surgetank.Broker, error) {
	u, err := r.address()
	if err != nil {
		return nil, err
	}
	transport, err := r.transport(u)
	if err != nil {
		return nil, err
	}
	return client.Dial(u.String(), client.Options{RetryFor: -1, Transport: transport})
}

// with calls do with a connection to the server and closes the connection.
func (r remote) with(do func(surgetank.Broker) error) error {
	b, err := r.dial()
	if err != nil {
		return err
	}
	defer b.Close()
	return do(b)
}
