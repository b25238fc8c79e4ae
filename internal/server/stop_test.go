package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	amqp091 "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/config"
	"github.com/surgetank/surgetank/internal/pgtest"
)

// eventually repeats a check until it succeeds. A check takes some time, so no further pause is
// needed.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !ok() {
		if ctx.Err() != nil {
			t.Fatalf("it did not come about that %s", what)
		}
	}
}

// TestStopSaysWhatItCutOff: three things outlast the time to stop: a sink's commit that waits for a
// lock, a request whose body does not arrive, and an AMQP client that does not answer. They are
// interrupted and named, nothing runs afterwards, and the next start finds the message.
func TestStopSaysWhatItCutOff(t *testing.T) {
	pg := pgtest.Start(t)
	dsn := pg.DSN("postgres")
	dir := t.TempDir()
	file, err := config.Parse("f.yaml", []byte(fmt.Sprintf(`
queues: {q: {}}
sinks:
  slow: {queue: q, postgres: {dsn: %q, table: rows, create_table: true, columns: {id: message.id}}}
`, dsn)), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	c := local(filepath.Join(dir, "data"))
	c.AMQP = "127.0.0.1:0"
	before := goleak.IgnoreCurrent()
	s, err := Start(t.Context(), Options{Config: c, File: file})
	if err != nil {
		t.Fatal(err)
	}

	eventually(t, "the sink runs", func() bool {
		i, err := s.sinks.Manager.Info(t.Context(), "slow")
		return err == nil && i.State == "running"
	})
	lock, err := pgconn.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close(context.Background())
	if _, err := lock.Exec(t.Context(), "BEGIN; LOCK TABLE rows IN ACCESS EXCLUSIVE MODE").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.broker.Publish(t.Context(), []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte("{}")}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a commit waits for the lock", func() bool {
		rows := pg.Query(t, dsn, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
		return rows[0][0] != "0"
	})

	slow, err := net.Dial("tcp", s.Addresses().HTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if _, err := fmt.Fprintf(slow, "POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the request is under way", func() bool { return s.requests.running() == 1 })

	proxy := pgtest.NewProxy(t, s.Addresses().AMQP)
	conn, err := amqp091.Dial("amqp://guest:guest@" + proxy.Addr() + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	proxy.Hold()

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	err = s.Stop(ctx)
	for _, want := range []string{"sink slow was interrupted", "with 1 messages", "1 HTTP requests", "AMQP connections"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	slow.Close()
	proxy.Release()
	proxy.Cut()
	conn.Close()
	http.DefaultClient.CloseIdleConnections()
	goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("github.com/surgetank/surgetank/internal/pgtest.(*Proxy).accept"))

	if _, err := lock.Exec(t.Context(), "COMMIT").ReadAll(); err != nil {
		t.Fatal(err)
	}
	again := start(t, Options{Config: c, File: file})
	eventually(t, "the message is in the table", func() bool {
		i, err := again.broker.Queue(t.Context(), "q")
		return err != nil || i.Ready+i.Leased+i.Delayed == 0
	})
	if rows := pg.Query(t, dsn, "SELECT count(*) FROM rows"); rows[0][0] != "1" {
		t.Errorf("%s rows", rows[0][0])
	}
}

// TestStopWithoutTime: a stop whose context has already ended still stops the sinks, in every run.
func TestStopWithoutTime(t *testing.T) {
	for range 10 {
		dir := t.TempDir()
		file, err := config.Parse("f.yaml", []byte(fmt.Sprintf(`
queues: {q: {}}
sinks:
  s: {queue: q, sqlite: {path: %q, table: rows, create_table: true, columns: {id: message.id}}}
`, filepath.Join(dir, "x.db"))), os.LookupEnv)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Start(t.Context(), Options{Config: local(filepath.Join(dir, "data")), File: file})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = s.Stop(ctx) // the interrupted work depends on the sink's progress
		if err := s.sinks.Manager.Pause(context.Background(), "s"); !errors.Is(err, surgetank.ErrClosed) {
			t.Errorf("after the stop, a change of a sink gave %v", err)
		}
	}
}
