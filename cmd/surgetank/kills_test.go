package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/client"
	"github.com/surgetank/surgetank/internal/server/child"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

var killedLines = flag.Int("lines", 40_000, "lines that TestPublishThroughKills publishes")

// TestPublishThroughKills kills the server several times while publish sends lines to a queue
// without a dedup window. Every line must be stored exactly once, in order inside its group, and
// publish must succeed.
func TestPublishThroughKills(t *testing.T) {
	if testing.Short() {
		t.Skip("a run of real processes; not under -short")
	}
	binary := filepath.Join(t.TempDir(), "surgetank")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Run("one lane", func(t *testing.T) { publishThroughKills(t, binary) })
	t.Run("groups in several lanes", func(t *testing.T) { publishThroughKills(t, binary, "--group", "$.g") })
}

func publishThroughKills(t *testing.T, binary string, args ...string) {
	const groups, kills = 7, 5
	n := *killedLines
	dir := t.TempDir()
	var input bytes.Buffer
	for i := range n {
		fmt.Fprintf(&input, `{"n":%d,"g":"g%d"}`+"\n", i, i%groups)
	}
	var log bytes.Buffer
	server := child.New(binary, filepath.Join(dir, "data"), &log, "--amqp", "off", "--shards", strconv.Itoa(shardstest.N))
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	start := func() {
		if err := server.Start(ctx); err != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
	}
	start()
	defer func() { server.Kill() }()
	c, err := client.Dial(server.Ready.HTTP, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, _, err := c.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	publish := exec.CommandContext(ctx, binary, append([]string{"publish", "q", "--batch-lines", "200", "--json"}, args...)...)
	publish.Env = append(os.Environ(), "SURGETANK_SERVER="+server.Ready.HTTP)
	var stdout, stderr bytes.Buffer
	publish.Stdin, publish.Stdout, publish.Stderr = &input, &stdout, &stderr
	if err := publish.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- publish.Wait() }()
	for i := range kills {
		awaitMessages(ctx, t, c, int64((i+1)*n/(kills+1)))
		server.Kill()
		start()
	}
	if err := <-ended; err != nil {
		t.Fatalf("publish: %v\n%s%s", err, stdout.String(), stderr.String())
	}
	if strings.Contains(stdout.String(), `"retries":0,`) {
		t.Errorf("no batch was sent again, so nothing was shown: %s", stdout.String())
	}
	t.Logf("%s", stdout.String())

	seen, last := make([]bool, n), map[string]int{}
	for got := 0; ; {
		ds, err := c.Receive(ctx, "q", surgetank.ReceiveOptions{Max: 1000, NoAck: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(ds) == 0 {
			if got != n {
				t.Errorf("%d messages are stored, %d lines were published", got, n)
			}
			return
		}
		for _, d := range ds {
			var i int
			var g string
			if _, err := fmt.Sscanf(string(d.Body), `{"n":%d,"g":%q}`, &i, &g); err != nil || i < 0 || i >= n {
				t.Fatalf("%q was not published: %v", d.Body, err)
			}
			if len(args) == 0 {
				g = ""
			}
			if before, ok := last[g]; seen[i] || ok && before >= i {
				t.Fatalf("line %d of group %q comes after %d (twice: %v)", i, g, before, seen[i])
			}
			seen[i], last[g], got = true, i, got+1
		}
	}
}

// awaitMessages waits until the queue has n messages.
func awaitMessages(ctx context.Context, t *testing.T, c *client.Client, n int64) {
	t.Helper()
	for {
		q, err := c.Queue(ctx, "q")
		if err != nil {
			t.Fatal(err)
		}
		if q.Ready+q.Blocked >= n {
			return
		}
	}
}
