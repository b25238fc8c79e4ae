package sink_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/sinktest"
)

func send(t *testing.T, b surgetank.Broker, n int, body string) {
	t.Helper()
	var msgs []surgetank.Publishing
	for range n {
		msgs = append(msgs, surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte(body)}})
	}
	if _, err := b.Publish(context.Background(), msgs); err != nil {
		t.Fatal(err)
	}
}

// TestTheBrake: if every message of a queue is bad, the brake stops the parking. A message that can
// be written ends the sequence.
func TestTheBrake(t *testing.T) {
	inMemory(t, surgetank.QueueConfig{}, &hooked{}, sink.Options{}, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		send(t, b, 1, `not JSON`)
		pass(time.Second)
		if st := r.Status(); st.Parked != 1 || st.State != sink.StateRunning {
			t.Errorf("one bad message: %+v", st)
		}
		send(t, b, 11, `not JSON`)
		pass(time.Second)
		if st := r.Status(); st.Parked != 12 || st.State != sink.StateRejecting {
			t.Errorf("a dozen: %+v", st)
		}
		send(t, b, 1000, `not JSON`)
		pass(time.Minute)
		st := r.Status()
		if st.State != sink.StateWaiting || !strings.Contains(st.Error, "brake") || st.Parked > 50 {
			t.Errorf("a thousand: %+v", st)
		}
		if q := queue(t, b); q.Ready+q.Leased+int64(st.Parked) != 1012 {
			t.Errorf("%d parked, the queue: %+v", st.Parked, q)
		}
		// A message that can be written shows that the other messages are at fault, not the table.
		send(t, b, 1, `{"v":1}`)
		pass(10 * time.Minute)
		if st := r.Status(); st.Applied != 1 || st.Parked != 1012 || st.HeldBack != 0 {
			t.Errorf("after a good one: %+v", st)
		}
		send(t, b, 100, `not JSON`)
		pass(time.Minute)
		if st := r.Status(); st.State != sink.StateWaiting {
			t.Errorf("again: %+v", st)
		}
		r.ResetBrake()
		send(t, b, 100, `not JSON`)
		pass(10 * time.Minute)
		if st := r.Status(); st.Parked != 1212 || st.State != sink.StateRejecting || !strings.Contains(st.Error, "JSON") {
			t.Errorf("after ResetBrake: %+v", st)
		}
	})
}

// TestASuspectAloneIsNotParked: the error of a single message does not show whether the message or
// the table is at fault. If other messages can be written, the message is at fault.
func TestASuspectAloneIsNotParked(t *testing.T) {
	inMemory(t, surgetank.QueueConfig{}, &hooked{}, sink.Options{}, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		send(t, b, 1, fmt.Sprintf(`{"v":%d}`, sinktest.VSuspect))
		pass(time.Hour)
		if st := r.Status(); st.Parked != 0 || st.HeldBack != 1 || st.State != sink.StateWaiting || !strings.Contains(st.Error, "a trigger said no") {
			t.Errorf("alone: %+v", st)
		}
		send(t, b, 1, `{"v":1}`)
		pass(10 * time.Second)
		if st := r.Status(); st.Parked != 1 || st.Applied != 1 || st.HeldBack != 0 || st.State != sink.StateRunning {
			t.Errorf("beside a good one: %+v", st)
		}
		db.Revoke(true)
		send(t, b, 500, `{"v":2}`)
		pass(time.Hour)
		if st := r.Status(); st.Parked != 1 || st.State != sink.StateWaiting {
			t.Errorf("without permission: %+v", st)
		}
		db.Revoke(false)
		pass(time.Minute)
		if st := r.Status(); st.Parked != 1 || st.Applied != 501 || st.State != sink.StateRunning {
			t.Errorf("with permission: %+v", st)
		}
	})
}

// TestASuspectAtTheHeadOfAGroup: the suspect is parked, although the later messages of its group
// must wait for it.
func TestASuspectAtTheHeadOfAGroup(t *testing.T) {
	inMemory(t, surgetank.QueueConfig{}, &hooked{}, sink.Options{}, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		publish(t, b, "g", sinktest.VSuspect, sinktest.VSuspect+1)
		publish(t, b, "g", 0, 20)
		pass(10 * time.Second)
		if st := r.Status(); st.Parked != 1 || st.Applied != 20 {
			t.Errorf("%+v", st)
		}
	})
}

// TestTheLogSumsUp: the log has one line a minute about parked messages, not one line for each
// message.
func TestTheLogSumsUp(t *testing.T) {
	var log bytes.Buffer
	opts := sink.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	inMemory(t, surgetank.QueueConfig{}, &hooked{}, opts, func(b *embedded.Broker, _ *sinktest.Memory, r *sink.Runner) {
		for range 20 {
			send(t, b, 10, `{"v":-1}`)
			send(t, b, 1, `{"v":1}`)
			pass(3 * time.Second)
		}
		pass(time.Minute)
		if n := strings.Count(log.String(), "parked messages"); n < 2 || n > 3 {
			t.Errorf("%d lines in two minutes:\n%s", n, log.String())
		}
		if st := r.Status(); st.Parked != 200 {
			t.Errorf("%+v", st)
		}
	})
}

// TestAnIdleLaneRests: an idle lane closes its connection. Once a minute the sink checks its
// target, and closes the connection again.
func TestAnIdleLaneRests(t *testing.T) {
	inMemory(t, surgetank.QueueConfig{}, &hooked{}, sink.Options{}, func(b *embedded.Broker, db *sinktest.Memory, r *sink.Runner) {
		send(t, b, 1, `{"v":1}`)
		pass(25 * time.Second)
		if n := db.Rests(); n != 0 {
			t.Errorf("rested %d times after 25 s", n)
		}
		pass(time.Hour)
		if n := db.Rests(); n != 1+60 {
			t.Errorf("rested %d times in an hour", n)
		}
		send(t, b, 1, `{"v":1}`)
		pass(time.Hour)
		if n := db.Rests(); n < 2+60+59 || n > 2+60+61 || r.Status().Applied != 2 {
			t.Errorf("rested %d times; the sink: %+v", n, r.Status())
		}
	})
}
