// Package serve opens Surgetank's doors on a broker that is embedded in this process: HTTP with
// metrics, and AMQP. Other programs, package client and the surgetank command reach the broker
// through them. Users, permissions, policies and sinks work as in a separate server.
//
// Only programs that import this package link the doors and their dependencies.
package serve

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/config"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/server"
)

// Off is the address of a closed door.
const Off = "off"

// Options configure a Server. The zero value serves HTTP on a free port of this machine's loopback
// interface, and no AMQP.
type Options struct {
	// HTTP is the address for HTTP, HOST:PORT. Port 0 is a free port. "" means 127.0.0.1:0, and Off
	// means no HTTP. While guest is the only user, an address that other machines can reach is an
	// error.
	HTTP string
	// AMQP is the address for AMQP 0-9-1. "" and Off mean no AMQP.
	AMQP string
	// TLSCert and TLSKey are PEM files. With them HTTP is HTTPS.
	TLSCert, TLSKey string
	// TrustedProxies are HTTP proxies whose headers about their clients' addresses are trusted.
	TrustedProxies []netip.Prefix
	// Logger gets the log of the doors and sinks. nil: nothing is logged.
	Logger *slog.Logger
	// Version is the program's version that the doors show.
	Version string
}

// Server is a set of open doors. Stop closes them.
type Server struct{ s *server.Server }

// Start opens the doors and starts the configured sinks. ctx limits the time of the start. If Start
// fails, it closes everything that it opened, and the broker stays open.
//
// The caller keeps the broker and must not close it before Stop has returned.
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

// HTTP returns the address of HTTP, HOST:PORT, or "" if there is no HTTP.
func (s *Server) HTTP() string { return s.s.Addresses().HTTP }

// AMQP returns the address of AMQP, HOST:PORT, or "" if there is no AMQP.
func (s *Server) AMQP() string { return s.s.Addresses().AMQP }

// Stop closes the doors and stops the sinks. When ctx ends, it cuts off the remaining requests,
// connections and commits, and returns an error that names them. The broker stays open.
func (s *Server) Stop(ctx context.Context) error { return s.s.Stop(ctx) }

// QueueName returns the name of a virtual host's queue for the methods of the broker. Queues of the
// virtual host "/" have plain names, so most programs do not need it.
func QueueName(vhost, queue string) string { return fullname.Of(vhost, queue) }

// SplitQueueName splits the name of a queue, as QueueName makes it, into virtual host and queue.
func SplitQueueName(name string) (vhost, queue string) { return fullname.Split(name) }
