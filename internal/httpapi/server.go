package httpapi

import (
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/surgetank/surgetank/internal/tally"
)

// ServerLimits limit connections. A zero field means its default, which is the last part of its
// comment.
type ServerLimits struct {
	MaxConns      int           // open connections; 10,000
	MaxConnsPerIP int           // open connections from one address, except loopback; 256
	HeaderTimeout time.Duration // time for a request's headers; 10 s
	IdleTimeout   time.Duration // time between requests; 2 min
	HeaderBytes   int           // bytes of a request's line and headers; 64 KiB

	TrustedProxies []netip.Prefix // peers whose connections belong to many clients
	Refused        *tally.Counts  // counts refusals by limits; nil: they are not counted
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

// NewServer makes an HTTP/1.1 server for a handler, with limits on headers and idle time. The
// handler limits the rate of bodies by deadlines of its own. Serve it on a listener from
// LimitListener.
func NewServer(h http.Handler, l ServerLimits, logger *slog.Logger) *http.Server {
	l = l.withDefaults()
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler: h, Protocols: &protocols, ConnState: connState, ConnContext: connContext,
		ReadHeaderTimeout: l.HeaderTimeout, IdleTimeout: l.IdleTimeout,
		// net/http adds 4096 bytes to the limit.
		MaxHeaderBytes: max(1, l.HeaderBytes-4096),
		ErrorLog:       slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}
