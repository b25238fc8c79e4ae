package amqp

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"os/signal"
	"testing"

	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/auth"
)

// TestServeForConformance is a server for other programs' tests to run against: it serves AMQP on SURGETANK_TEST_AMQP and the
// management API on SURGETANK_TEST_MANAGEMENT, with data in SURGETANK_TEST_DATA, until it is interrupted.
func TestServeForConformance(t *testing.T) {
	addr := os.Getenv("SURGETANK_TEST_AMQP")
	if addr == "" {
		t.Skip("a server for other programs; set SURGETANK_TEST_AMQP=host:port to run it")
	}
	level := slog.LevelWarn
	if os.Getenv("DEBUG") != "" {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	b, err := embedded.Open(os.Getenv("SURGETANK_TEST_DATA"), embedded.Options{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	a, err := auth.Open(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(context.Background(), Options{Broker: b, Auth: a, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if m := os.Getenv("SURGETANK_TEST_MANAGEMENT"); m != "" {
		http.Handle("/api/", s.Management())
		go http.ListenAndServe(m, nil)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	go func() {
		<-stop
		s.Shutdown(context.Background())
	}()
	if err := s.Serve(l); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
