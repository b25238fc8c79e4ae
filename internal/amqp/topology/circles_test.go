package topology

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/clock"
)

// TestCirclesAreSummedUp: the first event is logged at once, later ones once a minute. The last
// events are logged without a further event.
func TestCirclesAreSummedUp(t *testing.T) {
	var log bytes.Buffer
	c := clock.NewManual(time.Unix(1_800_000_000, 0))
	vh := &Vhost{Name: "v", env: &Env{Clock: c, Log: slog.New(slog.NewTextHandler(&log, nil))}}
	for range 3 {
		vh.circles.note(vh, "a", "b")
	}
	c.Advance(time.Minute)
	vh.circles.say(vh)
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "queue=a next=b messages=1") || !strings.Contains(lines[1], "messages=2") {
		t.Errorf("the log has %q", lines)
	}
}
