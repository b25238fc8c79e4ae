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
	"github.com/surgetank/surgetank/internal/tally"
)

// securityHeaders sets the headers of every answer. An answer is data, never a page, so browsers
// must not embed, sniff, cache or run it.
func securityHeaders(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
}

// checkOrigin rejects requests that a foreign web page made a browser send. There is no CORS: no
// answer allows another origin.
func (c *call) checkOrigin() error {
	if c.api.trusts() && !loopbackHost(c.r.Host) && !slices.Contains(c.api.opts.Hosts, hostname(c.r.Host)) {
		// DNS rebinding: a foreign name that resolves to this machine makes a browser treat the
		// page as local.
		return withStatus(http.StatusMisdirectedRequest, surgetank.Errorf(surgetank.CodeDenied,
			"this server answers to localhost only; the Host header names another host"))
	}
	if err := c.api.origins.Check(c.r); err != nil {
		return surgetank.Errorf(surgetank.CodeDenied, "a page of another origin may not use this server")
	}
	return nil
}

// hostname returns a Host header without its port and brackets.
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

// proxyHeaders are headers of a peer that forwards another client's request.
var proxyHeaders = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via"}

// Peer returns the address that a request comes from.
//
// A request without proxy headers comes from the connection's peer. For a request with proxy
// headers from a peer that is not a trusted proxy, the result is the zero Addr, because a proxy's
// own address says nothing about its client. From a trusted proxy, the result is the last address
// in X-Forwarded-For (or Forwarded) that is not a trusted proxy. Addresses further left are claims
// of the client. A loopback address is never believed, and neither are two headers that differ.
func Peer(r *http.Request, trusted []netip.Prefix) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	peer := ap.Addr().Unmap()
	if !proxied(r) {
		return peer
	}
	if !within(trusted, peer) {
		return netip.Addr{}
	}
	var found netip.Addr
	for _, list := range [][]netip.Addr{forwardedFor(r.Header["X-Forwarded-For"]), forwarded(r.Header["Forwarded"])} {
		if list == nil {
			continue
		}
		client := lastUntrusted(list, trusted)
		if found.IsValid() && found != client || !client.IsValid() || client.IsLoopback() {
			return netip.Addr{}
		}
		found = client
	}
	return found
}

func proxied(r *http.Request) bool {
	for _, h := range proxyHeaders {
		if len(r.Header[h]) > 0 {
			return true
		}
	}
	return false
}

func within(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// lastUntrusted searches from the nearest proxy to the first address that is not a trusted proxy.
func lastUntrusted(list []netip.Addr, trusted []netip.Prefix) netip.Addr {
	for _, a := range slices.Backward(list) {
		if !within(trusted, a) {
			return a
		}
	}
	return netip.Addr{}
}

// forwardedFor reads X-Forwarded-For. An entry that is no address becomes the zero Addr. It returns
// nil if there is no header.
func forwardedFor(lines []string) (list []netip.Addr) {
	for _, line := range lines {
		for entry := range strings.SplitSeq(line, ",") {
			list = append(list, nodeAddr(strings.TrimSpace(entry)))
		}
	}
	return list
}

// forwarded reads the for= parameters of RFC 7239's header. An element without the parameter is an
// unknown client.
func forwarded(lines []string) (list []netip.Addr) {
	for _, line := range lines {
		for element := range strings.SplitSeq(line, ",") {
			var a netip.Addr
			for pair := range strings.SplitSeq(element, ";") {
				if key, value, _ := strings.Cut(strings.TrimSpace(pair), "="); strings.EqualFold(key, "for") {
					a = nodeAddr(strings.Trim(value, `"`))
				}
			}
			list = append(list, a)
		}
	}
	return list
}

// nodeAddr reads an address with or without a port.
func nodeAddr(s string) netip.Addr {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap()
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

// trusts reports whether loopback counts as a login now.
func (a *API) trusts() bool { return a.opts.TrustLoopback != nil && a.opts.TrustLoopback() }

// direct reports whether the request comes from this machine, without a proxy that adds headers.
func (c *call) direct() bool {
	ap, err := netip.ParseAddrPort(c.r.RemoteAddr)
	return err == nil && ap.Addr().Unmap().IsLoopback() && !proxied(c.r)
}

// authenticate returns the calling user.
func (c *call) authenticate() (*auth.User, error) {
	guest := lobby.Of(c.r.Context())
	if len(c.r.Header["Authorization"]) == 0 {
		if c.api.trusts() && c.direct() {
			guest.Hold()
			return auth.Local(), nil
		}
		return nil, unauthorized(howToLogIn)
	}
	name, password, ok := c.r.BasicAuth()
	if !ok || len(c.r.Header["Authorization"]) > 1 {
		return nil, unauthorized("the Authorization header is not HTTP Basic with user:password in base64; send it once")
	}
	guest.Hold() // the place is busy until the request is answered, or its login is refused
	if name == "" && c.direct() && c.api.opts.LocalToken != nil && c.api.opts.LocalToken(password) {
		return auth.Local(), nil
	}
	peer := Peer(c.r, c.api.opts.TrustedProxies)
	if !peer.IsValid() {
		c.api.hideout.Do(func() {
			c.api.opts.Logger.Warn("a proxy hides its clients' addresses, so that wrong logins of one delay the first logins of all; if the proxy is yours, name it in server.trusted_proxies",
				"proxy", c.r.RemoteAddr)
		})
	}
	u, err := c.api.opts.Auth.Authenticate(c.r.Context(), name, password, peer)
	if err != nil {
		guest.Wait()
	}
	if surgetank.CodeOf(err) == surgetank.CodeBusy {
		c.api.opts.Refused.Add(tally.Logins)
	}
	if surgetank.CodeOf(err) == surgetank.CodeDenied {
		c.api.metrics.refusedLogins.Inc()
		return nil, withStatus(http.StatusUnauthorized, err)
	}
	return u, err
}

// howToLogIn is the answer to a request without a login. Anyone can read it, so it names no path.
const howToLogIn = "log in: HTTP Basic authentication with a user name and a password (surgetank --server http://USER:PASSWORD@HOST:PORT). " +
	"On the server's machine, its own user and root need no password: the surgetank command finds the server's token, or takes it with --token-file from local.token in the data directory"

func unauthorized(what string) error {
	return withStatus(http.StatusUnauthorized, surgetank.Errorf(surgetank.CodeDenied, "%s", what))
}
