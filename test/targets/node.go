//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/surgetank/surgetank/internal/server/child"
	"github.com/surgetank/surgetank/test/targets/judge"
)

// node is one server, its data directory, and the messages that the directory must contain.
type node struct {
	w       *world
	name    string
	data    string
	log     *os.File
	server  *child.Server
	address string // set after the first start
	holds   map[int]judge.Presence
	pub     *publisher
}

func (w *world) newNode(name, data string) (*node, error) {
	log, err := os.OpenFile(filepath.Join(w.dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	n := &node{w: w, name: name, data: data, log: log, holds: map[int]judge.Presence{}}
	n.server = child.New(w.binary, data, log, "--amqp", "off")
	n.server.Dir = w.dir
	w.nodes = append(w.nodes, n)
	return n, nil
}

// start starts the server again after it ended or was killed.
func (n *node) start() error {
	ctx, cancel := context.WithTimeout(n.w.ctx, 30*time.Second)
	defer cancel()
	if err := n.server.Start(ctx); err != nil {
		return fmt.Errorf("starting server %s: %w\n%s", n.name, err, tail(n.log.Name(), 600))
	}
	n.w.mu.Lock()
	n.address = n.server.Ready.HTTP
	n.w.mu.Unlock()
	return nil
}

func (n *node) stop() error {
	ctx, cancel := context.WithTimeout(n.w.ctx, 30*time.Second)
	defer cancel()
	return n.server.Stop(ctx)
}

// url is safe for use by many goroutines.
func (n *node) url() string {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.address
}

// call sends a request and reads the answer into out, if out is not nil.
func (n *node) call(method, path string, body []byte, out any) error {
	ctx, cancel := context.WithTimeout(n.w.ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, n.url()+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s %.300s", method, path, resp.Status, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

// setUp creates queue and sink.
func (n *node) setUp() error {
	settings := `{"dedup":{"window":"2h"},"retry":{"initial":"50ms","max":"200ms"}}`
	if n.w.plan.grouped {
		settings = `{"dedup":{"window":"2h"},"retry":{"initial":"50ms","max":"200ms"},"group":{"max_in_flight":1}}`
	}
	if err := n.call("PUT", "/v1/queues/q", []byte(settings), nil); err != nil {
		return err
	}
	return n.setSink()
}

func (n *node) setSink() error { return n.call("PUT", "/v1/sinks/rows", n.w.spec(), nil) }

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
	err = n.call("GET", "/v1/sinks/rows", nil, &s)
	return s, err
}

// backlog returns the number of messages in the queue.
func (n *node) backlog() (int, error) {
	var q struct{ Ready, Blocked, Delayed, Leased, Damaged int }
	err := n.call("GET", "/v1/queues/q", nil, &q)
	return q.Ready + q.Blocked + q.Delayed + q.Leased + q.Damaged, err
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
	var list struct{ Queues []struct{ Name string } }
	if err := n.call("GET", "/v1/queues", nil, &list); err != nil {
		return nil, err
	}
	found := map[int]string{}
	for _, q := range list.Queues {
		if q.Name != queue {
			continue
		}
		if err := n.call("GET", "/v1/queues/"+queue+"/messages?max=1000", nil, &a); err != nil {
			return nil, err
		}
		for _, m := range a.Messages {
			found[m.Body.N] = ""
			if len(m.Deaths) > 0 {
				found[m.Body.N] = m.Deaths[0].Reason + " " + m.Deaths[0].Detail
			}
		}
	}
	return found, nil
}

// cli runs a command against the server.
func (n *node) cli(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(n.w.ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.w.binary, args...)
	cmd.Env = append(os.Environ(), "SURGETANK_SERVER="+n.url())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// savedDirectory is a copy of a data directory and the messages that it must contain.
type savedDirectory struct {
	path  string
	holds map[int]judge.Presence
}

// save copies the data directory. While the server runs, the copy may or may not contain messages
// published meanwhile.
func (n *node) save(to string) (*savedDirectory, error) {
	n.w.mu.Lock()
	before := maps.Clone(n.holds)
	n.w.mu.Unlock()
	if err := copyLive(n.data, to); err != nil {
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
