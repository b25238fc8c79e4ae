package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/client"
	"github.com/surgetank/surgetank/internal/server/child"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"github.com/surgetank/surgetank/worker"
)

// TestWorkerOutlivesTheServer: a worker and a raw subscription of package client continue while the
// server is killed and restarted, and after it is stopped in order.
func TestWorkerOutlivesTheServer(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// testscript's main function runs the command that has the program's name.
	link := filepath.Join(t.TempDir(), "surgetank")
	if err := os.Symlink(binary, link); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("CI=true: nothing may be skipped: %v", err)
		}
		t.Skip("SKIPPED:", err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	server := child.New(link, filepath.Join(t.TempDir(), "data"), log, "--amqp", "off", "--shards", strconv.Itoa(shardstest.N))
	if err := server.Start(ctx); err != nil {
		t.Fatal(err)
	}
	defer server.Kill()
	c, err := client.Dial(server.Ready.HTTP, client.Options{RetryFor: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// The worker's client never retries, as if every downtime of the server were too long.
	impatient, err := client.Dial(server.Ready.HTTP, client.Options{RetryFor: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer impatient.Close()
	for _, q := range []string{"q", "raw"} {
		if _, _, err := c.DeclareQueue(ctx, q, surgetank.QueueConfig{DedupWindow: time.Hour, Retry: surgetank.RetryConfig{Initial: -1}}, surgetank.DeclareNew); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := c.Subscribe(ctx, "raw", surgetank.SubscribeOptions{Credit: 1})
	if err != nil {
		t.Fatal(err)
	}

	const rounds, each = 4, 50
	var mu sync.Mutex
	seen := map[string]bool{}
	all := make(chan struct{})
	working, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() {
		done <- worker.Run(working, impatient, "q", func(_ context.Context, d *surgetank.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			if seen[string(d.Body)] = true; len(seen) == rounds*each {
				select {
				case <-all:
				default:
					close(all)
				}
			}
			return nil
		}, worker.Options{Concurrency: 3})
	}()
	for round := range rounds {
		var msgs []surgetank.Publishing
		for i := range each {
			id := fmt.Sprint(round, "-", i)
			msgs = append(msgs, surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte(id), DedupID: id}})
		}
		id := fmt.Sprint("raw-", round)
		msgs = append(msgs, surgetank.Publishing{Queues: []string{"raw"}, Message: surgetank.Message{Body: []byte(id), DedupID: id}})
		if _, err := c.Publish(ctx, msgs); err != nil {
			t.Fatal(err)
		}
		got, err := raw.Receive(ctx, nil, 1, 1)
		if err != nil || string(got[0].Body) != id {
			t.Fatalf("round %d: %v, %v", round, got, err)
		}
		if round%2 == 0 {
			server.Kill()
		} else if err := server.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		if err := server.Start(ctx); err != nil {
			t.Fatal(err)
		}
		// The earlier lease has ended, so the message is delivered again.
		again, err := raw.Receive(ctx, nil, 1, 1)
		if err != nil || string(again[0].Body) != id || !again[0].Redelivered {
			t.Fatalf("round %d, after the restart: %+v, %v", round, again, err)
		}
		results, err := c.Settle(ctx, []surgetank.Settlement{{Receipt: got[0].Receipt}, {Receipt: again[0].Receipt}})
		if err != nil || surgetank.CodeOf(results[0]) != surgetank.CodeLeaseLost || results[1] != nil {
			t.Fatalf("round %d: %v, %v", round, results, err)
		}
	}
	select {
	case <-all:
	case err := <-done:
		t.Fatalf("the worker ended: %v", err)
	case <-ctx.Done():
		t.Fatalf("%d of %d messages were handled", len(seen), rounds*each)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
