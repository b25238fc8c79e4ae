// Package inprocess runs a server inside a test's own process. Package server runs one in a process
// of its own.
package inprocess

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/config"
	"github.com/surgetank/surgetank/internal/localtoken"
	"github.com/surgetank/surgetank/internal/server"
)

// Server is a running server with both doors. It stops at the end of the test.
type Server struct {
	HTTP, AMQP string // addresses, HOST:PORT
	Token      string // password of the machine's own programs
}

// Start starts a server with an empty data directory on free loopback ports.
func Start(t *testing.T) *Server {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	s, err := server.Start(t.Context(), server.Options{Config: config.Server{Data: dir, HTTP: "127.0.0.1:0", AMQP: "127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error("stopping the server:", err)
		}
	})
	token, err := localtoken.Read(filepath.Join(dir, localtoken.Name))
	if err != nil {
		t.Fatal(err)
	}
	return &Server{s.Addresses().HTTP, s.Addresses().AMQP, token}
}
