package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/internal/config"
	"github.com/surgetank/surgetank/internal/server"
	"github.com/surgetank/surgetank/internal/server/child"
)

type serveCmd struct {
	Data     string `placeholder:"DIR" help:"Data directory. Default ./surgetank-data."`
	HTTP     string `name:"http" placeholder:"ADDR" help:"Address of the HTTP interface, or off. Default 127.0.0.1:8080."`
	AMQP     string `name:"amqp" placeholder:"ADDR" help:"Address for AMQP 0-9-1, or off. Default 127.0.0.1:5672."`
	Shards   int    `placeholder:"N" help:"Number of shards: logs with a loop each. Default: as in the configuration file, or 1."`
	Config   string `placeholder:"FILE" help:"Configuration file; its queues and sinks are declared at start. Flags win over it."`
	LogLevel string `placeholder:"LEVEL" help:"debug, info, warn or error. Default info."`
	LogJSON  bool   `name:"log-json" help:"Log JSON instead of text."`
	output
}

// stopTime is how long current requests may take to finish when the server stops.
const stopTime = 15 * time.Second

// Run serves until SIGTERM or an interrupt, or until the log fails. A second interrupt ends it at
// once.
func (c *serveCmd) Run(s *session) error {
	o, err := c.options(s)
	if err != nil {
		return err
	}
	restrictFiles()
	srv, err := server.Start(s.ctx, o)
	if err != nil {
		return err
	}
	if err := c.announce(s.stdout, srv); err != nil {
		o.Logger.Error("cannot print the addresses", "error", err)
	}
	select {
	case <-s.ctx.Done():
		o.Logger.Info("stopping", "finish_within", stopTime)
	case <-srv.Done():
		o.Logger.Error("the log failed", "error", srv.Err())
	}
	failed := srv.Err()
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		stopped <- srv.Stop(ctx)
	}()
	select {
	case err = <-stopped:
	case <-again:
		return &failure{exitFailed, errors.New("stopped at once by a second signal; what was confirmed is safe")}
	}
	if failed != nil {
		return failed
	}
	if err != nil {
		return fmt.Errorf("stopping: %w", err)
	}
	o.Logger.Info("stopped")
	return nil
}

// options combines file and flags.
func (c *serveCmd) options(s *session) (server.Options, error) {
	var o server.Options
	o.Version = readBuildInfo().Version
	if c.Config != "" {
		f, err := config.Load(c.Config)
		if err != nil {
			var ps config.Problems
			if errors.As(err, &ps) {
				return o, mistakes(s.stderr, ps)
			}
			return o, err
		}
		o.File, o.Config = f, f.Server
	}
	for _, f := range []struct {
		flag string
		into *string
	}{{c.Data, &o.Config.Data}, {c.HTTP, &o.Config.HTTP}, {c.AMQP, &o.Config.AMQP}} {
		if f.flag != "" {
			*f.into = f.flag
		}
	}
	if c.Shards < 0 {
		return o, &failure{exitUsage, fmt.Errorf("--shards must be at least 1, not %d", c.Shards)}
	}
	if c.Shards != 0 {
		if n := len(o.Config.ShardDirs); n > 0 && n != c.Shards {
			return o, &failure{exitUsage, fmt.Errorf("--shards is %d and the configuration file lists the directories of %d shards; leave the flag out, or change the list", c.Shards, n)}
		}
		o.Config.Shards = c.Shards
	}
	if c.LogLevel != "" {
		if err := o.Config.LogLevel.UnmarshalText([]byte(c.LogLevel)); err != nil {
			return o, &failure{exitUsage, fmt.Errorf("--log-level must be debug, info, warn or error, not %.40q", c.LogLevel)}
		}
	}
	h := &slog.HandlerOptions{Level: o.Config.LogLevel}
	if c.LogJSON || o.Config.LogFormat == "json" {
		o.Logger = slog.New(slog.NewJSONHandler(s.stderr, h))
	} else {
		o.Logger = slog.New(slog.NewTextHandler(s.stderr, h))
	}
	return o, nil
}

// announce says that all doors are open. Programs get one JSON line; people get the addresses and a
// command to try.
func (c *serveCmd) announce(w io.Writer, srv *server.Server) error {
	a := srv.Addresses()
	r := child.Ready{Ready: true, Data: srv.Data(), PID: os.Getpid(), Version: readBuildInfo().Version}
	scheme := "http://"
	if a.TLS {
		scheme = "https://"
	}
	for _, u := range []struct {
		scheme, address string
		into            *string
	}{{scheme, a.HTTP, &r.HTTP}, {"amqp://", a.AMQP, &r.AMQP}, {"amqps://", a.AMQPS, &r.AMQPS}} {
		if u.address != "" {
			*u.into = u.scheme + u.address
		}
	}
	return c.print(w, r, func(w io.Writer) error {
		var b strings.Builder
		fmt.Fprintf(&b, "Surgetank %s is ready.\n\n", r.Version)
		for _, line := range [][2]string{{"HTTP", r.HTTP}, {"AMQP", r.AMQP}, {"AMQPS", r.AMQPS}, {"data", r.Data}} {
			if line[1] != "" {
				fmt.Fprintf(&b, "  %-6s %s\n", line[0], line[1])
			}
		}
		if srv.OnlyGuest() {
			b.WriteString("\n  Only this machine can use it: guest (password guest) is the only user.\n")
		}
		if r.HTTP != "" {
			env := ""
			if r.HTTP != "http://127.0.0.1:8080" {
				env = " --server " + r.HTTP
			}
			fmt.Fprintf(&b, "\nTry, in another terminal:\n  surgetank queue set orders dedup.window=10m%s\n  curl -d '{\"n\":1}' %s/v1/queues/orders/messages\n  surgetank consume orders --ack%s\n\n", env, r.HTTP, env)
		}
		_, err := io.WriteString(w, b.String())
		return err
	})
}
