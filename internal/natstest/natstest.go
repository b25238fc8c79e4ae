// Package natstest runs clusters of NATS servers inside a test, on free ports of loopback. Only
// tests may import it, because it links a NATS server.
package natstest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Options describe a cluster.
type Options struct {
	Servers int
	// NoSync makes the servers sync every two minutes, which is the default of NATS.
	NoSync bool
}

// Cluster is a running cluster. All servers store their data in a temporary directory.
type Cluster struct {
	t       testing.TB
	dir     string
	servers []*server.Server
	configs []string
	ports   []int // of servers that were stopped once
}

// readyIn is the time limit for starts and elections.
const readyIn = 60 * time.Second

// Start starts a cluster and waits until JetStream has a leader. The cluster ends with the test.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := &Cluster{t: t, dir: t.TempDir()}
	c.Run(o)
	t.Cleanup(c.Stop)
	return c
}

// StartIn starts a cluster in a directory. The caller stops it. A failure ends the program.
func StartIn(dir string, o Options) *Cluster {
	c := &Cluster{dir: dir}
	c.Run(o)
	return c
}

func (c *Cluster) must(err error, what string) {
	if err == nil {
		return
	}
	if c.t == nil {
		panic(fmt.Sprintf("natstest: %s: %v", what, err))
	}
	c.t.Helper()
	c.t.Fatalf("%s: %v", what, err)
}

// Run starts the servers.
func (c *Cluster) Run(o Options) {
	ports := freePorts(c, o.Servers)
	var routes []string
	for _, p := range ports {
		routes = append(routes, fmt.Sprintf("nats-route://127.0.0.1:%d", p))
	}
	sync := "always"
	if o.NoSync {
		sync = "2m"
	}
	for i, port := range ports {
		text := fmt.Sprintf(`
server_name: n%d
listen: "127.0.0.1:-1"
jetstream { store_dir: %q, sync_interval: %s, max_memory_store: 64MB, max_file_store: 64GB }
accounts {
  SYS { users: [ { user: sys, password: sys } ] }
  APP { jetstream: enabled, users: [ { user: app, password: app } ] }
}
system_account: SYS
`, i, filepath.Join(c.dir, fmt.Sprintf("n%d", i)), sync)
		if o.Servers > 1 {
			text += fmt.Sprintf("cluster { name: test, listen: \"127.0.0.1:%d\", routes: [ %s ] }\n", port, strings.Join(routes, ", "))
		}
		file := filepath.Join(c.dir, fmt.Sprintf("n%d.conf", i))
		c.must(os.WriteFile(file, []byte(text), 0o600), "writing the configuration")
		c.configs = append(c.configs, file)
		c.servers, c.ports = append(c.servers, nil), append(c.ports, 0)
		c.Boot(i)
	}
	for i, s := range c.servers {
		if !s.ReadyForConnections(readyIn) {
			c.must(fmt.Errorf("server %d does not accept connections", i), "starting NATS")
		}
	}
	c.Poll("JetStream has a leader", func() bool {
		for _, s := range c.servers {
			if o.Servers == 1 || s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == o.Servers {
				return true
			}
		}
		return false
	})
}

func freePorts(c *Cluster, n int) (ports []int) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		c.must(err, "finding a free port")
		defer func() { _ = l.Close() }() // nobody has connected
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// Boot starts a server that was stopped.
func (c *Cluster) Boot(i int) {
	opts, err := server.ProcessConfigFile(c.configs[i])
	c.must(err, "reading the configuration")
	opts.NoLog, opts.NoSigs = true, true
	if c.ports[i] != 0 { // clients know it
		opts.Port = c.ports[i]
	}
	s, err := server.NewServer(opts)
	c.must(err, "making a NATS server")
	c.servers[i] = s
	s.Start()
}

// Halt stops a server and waits for its end.
func (c *Cluster) Halt(i int) {
	c.ports[i] = c.servers[i].Addr().(*net.TCPAddr).Port
	c.servers[i].Shutdown()
	c.servers[i].WaitForShutdown()
}

// Stop stops all servers.
func (c *Cluster) Stop() {
	for _, s := range c.servers {
		s.Shutdown()
	}
	for _, s := range c.servers {
		s.WaitForShutdown()
	}
}

// Store returns the directory of a server's copy of a stream.
func (c *Cluster) Store(i int, stream string) string {
	return filepath.Join(c.dir, fmt.Sprintf("n%d", i), "jetstream", "APP", "streams", stream)
}

// URL returns the address of a server for the account with JetStream.
func (c *Cluster) URL(i int) string {
	return fmt.Sprintf("nats://app:app@%s", c.servers[i].Addr())
}

// URLs returns the addresses of all servers.
func (c *Cluster) URLs() string {
	var list []string
	for i := range c.servers {
		list = append(list, c.URL(i))
	}
	return strings.Join(list, ",")
}

// System connects to the system account.
func (c *Cluster) System() *nats.Conn {
	nc, err := nats.Connect(strings.ReplaceAll(c.URLs(), "app:app", "sys:sys"), nats.MaxReconnects(-1))
	c.must(err, "connecting to the system account")
	return nc
}

// Poll waits until a condition is true.
func (c *Cluster) Poll(what string, is func() bool) {
	deadline := time.Now().Add(readyIn)
	for !is() {
		if time.Now().After(deadline) {
			c.must(fmt.Errorf("it did not happen in %v", readyIn), what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// Leader returns the number of the server that leads a stream. It waits for an election.
func (c *Cluster) Leader(nc *nats.Conn, stream string) (leader int) {
	js, err := jetstream.New(nc)
	c.must(err, "using JetStream")
	c.Poll("the stream "+stream+" has a leader", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s, err := js.Stream(ctx, stream)
		if err != nil || s.CachedInfo().Cluster == nil || s.CachedInfo().Cluster.Leader == "" {
			return false
		}
		_, err = fmt.Sscanf(s.CachedInfo().Cluster.Leader, "n%d", &leader)
		return err == nil
	})
	return leader
}

// StepDown makes another server lead a stream.
func (c *Cluster) StepDown(nc *nats.Conn, stream string) { c.stepDown(nc, stream, "") }

// Lead makes a server lead a stream.
func (c *Cluster) Lead(nc *nats.Conn, stream string, i int) {
	for c.Leader(nc, stream) != i {
		c.stepDown(nc, stream, fmt.Sprintf(`{"placement":{"preferred":"n%d"}}`, i))
	}
}

func (c *Cluster) stepDown(nc *nats.Conn, stream, request string) {
	c.Poll("the leader of "+stream+" answers", func() bool { // a leader that just changed has no answer
		m, err := nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, []byte(request), time.Second)
		return err == nil && !strings.Contains(string(m.Data), `"error"`)
	})
}

// Current waits until all replicas of a stream have all messages.
func (c *Cluster) Current(nc *nats.Conn, stream string) {
	js, err := jetstream.New(nc)
	c.must(err, "using JetStream")
	c.Poll("all replicas of "+stream+" are current", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s, err := js.Stream(ctx, stream)
		if err != nil || s.CachedInfo().Cluster == nil || len(s.CachedInfo().Cluster.Replicas) < len(c.servers)-1 {
			return false
		}
		for _, p := range s.CachedInfo().Cluster.Replicas {
			if !p.Current || p.Offline || p.Lag > 0 {
				return false
			}
		}
		return true
	})
}
