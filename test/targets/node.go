//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"github.com/surgetank/surgetank/test/kit/client"
	"github.com/surgetank/surgetank/test/kit/server"
	"github.com/surgetank/surgetank/test/targets/judge"
)

// node is one server, its data directory, and the messages that the directory must contain.
type node struct {
	server.Server
	w     *world
	name  string
	api   *client.HTTP
	holds map[int]judge.Presence
	pub   *publisher
}

func (w *world) newNode(name, data string) *node {
	n := &node{w: w, name: name, holds: map[int]judge.Presence{}}
	n.Binary, n.Data, n.Log, n.Dir = w.binary, data, filepath.Join(w.dir, name+".log"), w.dir
	n.api = client.NewHTTP(n.URL, 20*time.Second)
	w.nodes = append(w.nodes, n)
	return n
}

// start starts the server again after it ended or was killed.
func (n *node) start() error {
	ctx, cancel := context.WithTimeout(n.w.ctx, 30*time.Second)
	defer cancel()
	if err := n.Start(ctx); err != nil {
		return fmt.Errorf("starting server %s: %w\n%s", n.name, err, n.Tail(600))
	}
	return nil
}

func (n *node) stop() error {
	ctx, cancel := context.WithTimeout(n.w.ctx, 30*time.Second)
	defer cancel()
	return n.Stop(ctx)
}

// call sends a request and reads the answer into out, if out is not nil.
func (n *node) call(method, path, body string, out any) error {
	a := n.api.JSON(n.w.ctx, method, path, body, 0, out)
	if err := a.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// setUp creates the queue and the sink.
func (n *node) setUp() error {
	settings := `{"dedup":{"window":"2h"},"retry":{"initial":"50ms","max":"200ms"}}`
	if n.w.plan.grouped {
		settings = `{"dedup":{"window":"2h"},"retry":{"initial":"50ms","max":"200ms"},"group":{"max_in_flight":1}}`
	}
	if err := n.api.Declare(n.w.ctx, "q", settings); err != nil {
		return err
	}
	return n.setSink()
}

func (n *node) setSink() error { return n.call("PUT", "/v1/sinks/rows", string(n.w.spec()), nil) }

// sinkStatus is the part of a sink's status that the campaign reads.
type sinkStatus struct {
	State   string `json:"state"`
	Reason  string `json:"reason"`
	Refusal *struct {
		judge.Numbers
		Kind string   `json:"kind"`
		Ways []wayOut `json:"ways"`
	} `json:"refusal"`
}

// wayOut is one way to continue that a sink offers.
type wayOut struct {
	Way     string `json:"way"`
	Effect  string `json:"effect"`
	Doubled int    `json:"doubled"`
	Skipped int    `json:"skipped"`
	Lost    int    `json:"lost"`
}

func (n *node) sink() (s sinkStatus, err error) {
	err = n.call("GET", "/v1/sinks/rows", "", &s)
	return s, err
}

// backlog returns the number of messages in the queue.
func (n *node) backlog() (int64, error) {
	q, err := n.api.Queue(n.w.ctx, "q")
	if q == nil {
		return 0, err
	}
	return q.Messages() + q.Damaged, err
}

// peek lists the messages of a queue with the reasons of dead letters. A missing queue counts as
// empty.
func (n *node) peek(queue string) (map[int]string, error) {
	var a struct {
		Messages []struct {
			Body   struct{ N int }
			Deaths []struct{ Reason, Detail string }
		}
	}
	found := map[int]string{}
	if q, err := n.api.Queue(n.w.ctx, queue); q == nil {
		return found, err
	}
	if err := n.call("GET", "/v1/queues/"+queue+"/messages?max=1000", "", &a); err != nil {
		return nil, err
	}
	for _, m := range a.Messages {
		found[m.Body.N] = ""
		if len(m.Deaths) > 0 {
			found[m.Body.N] = m.Deaths[0].Reason + " " + m.Deaths[0].Detail
		}
	}
	return found, nil
}

// cli runs a command against the server.
func (n *node) cli(args ...string) error {
	ctx, cancel := context.WithTimeout(n.w.ctx, 30*time.Second)
	defer cancel()
	_, err := n.Command(ctx, args...)
	return err
}

// savedDirectory is a copy of a data directory and the messages that it must contain.
type savedDirectory struct {
	path  string
	holds map[int]judge.Presence
}

// save copies the data directory. If the server runs, messages that are published meanwhile can be
// in the copy or not.
func (n *node) save(to string) (*savedDirectory, error) {
	n.w.mu.Lock()
	before := maps.Clone(n.holds)
	n.w.mu.Unlock()
	if err := copyLive(n.Data, to); err != nil {
		return nil, err
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	holds := map[int]judge.Presence{}
	for m := range n.w.messages {
		if before[m] == judge.Sure {
			holds[m] = judge.Sure
		} else if n.w.owner[m] == n {
			holds[m] = judge.Maybe
		}
	}
	return &savedDirectory{path: to, holds: holds}, nil
}
