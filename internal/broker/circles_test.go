package broker

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/queue"
)

// TestCirclesAreSummedUp: one line at once, then one a minute with the sum.
func TestCirclesAreSummedUp(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	var c circles
	for s := range 121 {
		c.note(log, []queue.Circle{{From: "a", To: "b", Messages: 2}}, int64(time.Duration(s)*time.Second))
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], "messages=2") || !strings.Contains(lines[1], "queue=a next=b messages=120") {
		t.Errorf("%d lines:\n%s", len(lines), b.String())
	}
}
