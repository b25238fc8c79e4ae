package httpapi

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// ServerLimits bound what connections may take. Zero fields mean the defaults.
type ServerLimits struct {
	MaxConns      int           // open at a time; 10,000
	MaxConnsPerIP int           // from one address, loopback aside; 256
	HeaderTimeout time.Duration // for a request's headers; 10 s
	IdleTimeout   time.Duration // between requests; 2 min
	HeaderBytes   int           // of a request's line and headers; 64 KiB
}

func (l ServerLimits) withDefaults() ServerLimits {
	if l.MaxConns == 0 {
		l.MaxConns = 10_000
	}
	if l.MaxConnsPerIP == 0 {
		l.MaxConnsPerIP = 256
	}
	if l.HeaderTimeout == 0 {
		l.HeaderTimeout = 10 * time.Second
	}
	if l.IdleTimeout == 0 {
		l.IdleTimeout = 2 * time.Minute
	}
	if l.HeaderBytes == 0 {
		l.HeaderBytes = 64 << 10
	}
	return l
}

// NewServer makes the server around a handler: HTTP/1.1 only, with limits on headers, idle time and the rate of bodies (which
// the handler keeps, by deadlines of its own). Serve it on a listener from LimitListener.
func NewServer(h http.Handler, l ServerLimits, logger *slog.Logger) *http.Server {
	l = l.withDefaults()
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler: h, Protocols: &protocols,
		ReadHeaderTimeout: l.HeaderTimeout, IdleTimeout: l.IdleTimeout,
		// net/http adds 4096 bytes of slack of its own.
		MaxHeaderBytes: max(1, l.HeaderBytes-4096),
		ErrorLog:       slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// LimitListener closes connections above the limits as soon as they are accepted, so that one peer cannot take all of
// them and all peers cannot take all memory. Loopback peers share one address and count towards the total only.
func LimitListener(ln net.Listener, l ServerLimits) net.Listener {
	l = l.withDefaults()
	return &limitListener{Listener: ln, limits: l, byIP: map[netip.Addr]int{}}
}

type limitListener struct {
	net.Listener
	limits ServerLimits
	mu     sync.Mutex
	total  int
	byIP   map[netip.Addr]int
}

// Accept gives the next connection within the limits.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		ip := remoteIP(conn)
		if l.take(ip) {
			return &limitedConn{Conn: conn, free: sync.OnceFunc(func() { l.give(ip) })}, nil
		}
		_ = conn.Close() // nothing was sent; the peer learns by the closing
	}
}

func remoteIP(conn net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

func (l *limitListener) take(ip netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= l.limits.MaxConns || !ip.IsLoopback() && l.byIP[ip] >= l.limits.MaxConnsPerIP {
		return false
	}
	l.total++
	l.byIP[ip]++
	return true
}

func (l *limitListener) give(ip netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.byIP[ip]--; l.byIP[ip] <= 0 {
		delete(l.byIP, ip)
	}
}

type limitedConn struct {
	net.Conn
	free func()
}

// Close closes the connection and gives its place back.
func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.free()
	return err
}
