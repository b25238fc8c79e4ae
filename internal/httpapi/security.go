package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/lobby"
)

// securityHeaders go on every answer: it is data, never a page, and nobody may embed, sniff, cache or run it.
func securityHeaders(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
}

// checkOrigin refuses requests that a foreign web page made a browser send. There is no CORS: no answer ever
// allows another origin.
func (c *call) checkOrigin() error {
	if c.api.opts.TrustLoopback && !loopbackHost(c.r.Host) && !slices.Contains(c.api.opts.Hosts, hostname(c.r.Host)) {
		// DNS rebinding: a foreign name that resolves to this machine makes a browser think the page is from here.
		return withStatus(http.StatusMisdirectedRequest, surgetank.Errorf(surgetank.CodeDenied,
			"this server answers to localhost only; the Host header names another host"))
	}
	if err := c.api.origins.Check(c.r); err != nil {
		return surgetank.Errorf(surgetank.CodeDenied, "a page of another origin may not use this server")
	}
	return nil
}

// hostname is a Host header without its port and brackets.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

func loopbackHost(host string) bool {
	name := hostname(host)
	if strings.EqualFold(name, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(name)
	return err == nil && a.Unmap().IsLoopback()
}

// proxyHeaders show that the peer speaks for somebody else.
var proxyHeaders = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via"}

// peer is the address the request comes from; the zero Addr when a proxy sent it, whose own nearness proves nothing.
func (c *call) peer() netip.Addr {
	for _, h := range proxyHeaders {
		if len(c.r.Header[h]) > 0 {
			return netip.Addr{}
		}
	}
	ap, err := netip.ParseAddrPort(c.r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// authenticate tells who is calling.
func (c *call) authenticate() (*auth.User, error) {
	peer, guest := c.peer(), lobby.Of(c.r.Context())
	if len(c.r.Header["Authorization"]) == 0 {
		if c.api.opts.TrustLoopback && peer.IsLoopback() {
			guest.Hold()
			return auth.Local(), nil
		}
		return nil, unauthorized("log in with HTTP Basic authentication, a user name and a password")
	}
	name, password, ok := c.r.BasicAuth()
	if !ok || len(c.r.Header["Authorization"]) > 1 {
		return nil, unauthorized("the Authorization header is not HTTP Basic with user:password in base64; send it once")
	}
	guest.Hold() // until the request is answered, or its login refused
	u, err := c.api.opts.Auth.Authenticate(c.r.Context(), name, password, peer)
	if err != nil {
		guest.Wait()
	}
	if surgetank.CodeOf(err) == surgetank.CodeDenied {
		c.api.metrics.refusedLogins.Inc()
		return nil, withStatus(http.StatusUnauthorized, err)
	}
	return u, err
}

func unauthorized(what string) error {
	return withStatus(http.StatusUnauthorized, surgetank.Errorf(surgetank.CodeDenied, "%s", what))
}
