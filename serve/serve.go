// Package serve opens Surgetank's doors on a broker that is embedded in this process: HTTP with
// metrics, and AMQP. Other programs, package client and the surgetank command reach the broker
// through them, with the same users, permissions, policies and sinks as in a server of its own.
//
// The doors and their dependencies are linked into a program that imports this package, and only
// into such a program.
package serve

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/config"
	"github.com/surgetank/surgetank/internal/server"
)

// Off as an address leaves a door closed.
const Off = "off"

// Options are those of one server. The zero value serves HTTP on a free port of this machine's
// loopback interface, and no AMQP.
type Options struct {
	// HTTP is where HTTP listens, HOST:PORT. Port 0 is a free port. "": 127.0.0.1:0; Off: nowhere. An
	// address that other machines reach is refused while guest is the only user.
	HTTP string
	// AMQP is where AMQP 0-9-1 listens. "" and Off: nowhere.
	AMQP string
	// TLSCert and TLSKey are PEM files. With them HTTP is HTTPS.
	TLSCert, TLSKey string
	// TrustedProxies are HTTP proxies whose word about their clients' addresses counts.
	TrustedProxies []netip.Prefix
	// Logger gets what happens beside requests. nil: nothing is logged.
	Logger *slog.Logger
	// Version is what the doors call the program's version.
	Version string
}

// Server is a set of open doors. Stop closes them.
type Server struct{ s *server.Server }

// Start opens the doors and starts the sinks that are set. ctx bounds the starting. If Start fails,
// nothing is left running, and the broker goes on.
//
// The broker stays the caller's: it must be open until Stop has returned.
func Start(ctx context.Context, b *embedded.Broker, o Options) (*Server, error) {
	if b == nil {
		return nil, surgetank.FieldErrorf("broker", "there is no broker to serve; open one with embedded.Open or embedded.Memory")
	}
	if o.HTTP == "" {
		o.HTTP = "127.0.0.1:0"
	}
	if o.AMQP == "" {
		o.AMQP = Off
	}
	s, err := server.Start(ctx, server.Options{Broker: b, Logger: o.Logger, Version: o.Version,
		Config: config.Server{HTTP: o.HTTP, AMQP: o.AMQP, TLSCert: o.TLSCert, TLSKey: o.TLSKey, TrustedProxies: o.TrustedProxies}})
	if err != nil {
		return nil, err
	}
	return &Server{s}, nil
}

// HTTP gives the address where HTTP listens, HOST:PORT; "" if it does not.
func (s *Server) HTTP() string { return s.s.Addresses().HTTP }

// AMQP gives the address where AMQP listens, HOST:PORT; "" if it does not.
func (s *Server) AMQP() string { return s.s.Addresses().AMQP }

// Stop closes the doors and stops the sinks. Requests, connections and commits that have not ended
// when ctx ends are cut off, and the error says which. The broker goes on.
func (s *Server) Stop(ctx context.Context) error { return s.s.Stop(ctx) }
