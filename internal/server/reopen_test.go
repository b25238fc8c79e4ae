package server

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/config"
)

// TestClientsLiveThroughALostLog: the log's directory is moved away under a server with an AMQP
// connection, an HTTP client and a sink, and put back. The connection, its channel, its consumer and
// its exclusive queue stay. The ack of a delivery from before does not close the channel, and the
// message is delivered again. Each row of the sink is written once.
func TestClientsLiveThroughALostLog(t *testing.T) {
	dir := t.TempDir()
	data, rows := filepath.Join(dir, "data"), filepath.Join(dir, "rows.db")
	file, err := config.Parse("f.yaml", []byte(fmt.Sprintf(`
server: {sqlite_dir: any}
queues: {q: {}, orders: {}}
sinks:
  db: {queue: orders, sqlite: {path: %q, table: rows, create_table: true, columns: {id: message.id, body: body}}, batch: {max: 1}}
`, rows)), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	c := file.Server
	c.Shards = 1 // so that the alarm comes: it is about all shards
	c.Data, c.HTTP, c.AMQP = data, "127.0.0.1:0", "127.0.0.1:0"
	s := start(t, Options{Config: c, File: file})
	base := "http://" + s.Addresses().HTTP
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	conn, err := amqp091.Dial("amqp://guest:guest@" + s.Addresses().AMQP)
	must(err)
	defer conn.Close()
	blocked := conn.NotifyBlocked(make(chan amqp091.Blocking, 10))
	closed := conn.NotifyClose(make(chan *amqp091.Error, 1))
	in, err := conn.Channel()
	must(err)
	out, err := conn.Channel()
	must(err)
	must(out.Confirm(false))
	must(in.Qos(1, 0, false))
	mine, err := in.QueueDeclare("", false, true, true, false, nil)
	must(err)
	own, err := in.Consume(mine.Name, "own", true, true, false, false, nil)
	must(err)
	got, err := in.Consume("q", "mine", false, false, false, false, nil)
	must(err)
	publish := func(queue, body string) bool {
		t.Helper()
		conf, err := out.PublishWithDeferredConfirm("", queue, false, false, amqp091.Publishing{Body: []byte(body), DeliveryMode: amqp091.Persistent})
		must(err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ok, err := conf.WaitContext(ctx)
		must(err)
		return ok
	}
	next := func(from <-chan amqp091.Delivery) amqp091.Delivery {
		t.Helper()
		select {
		case d, ok := <-from:
			if !ok {
				t.Fatal("the consumer ended")
			}
			return d
		case <-time.After(time.Minute):
			t.Fatal("no delivery")
		}
		panic("not reached")
	}
	if !publish("q", "first") || !publish("orders", "row 1") {
		t.Fatal("a publish was refused")
	}
	first := next(got)
	eventually(t, "the sink writes", func() bool {
		i, err := s.sinks.Manager.Info(t.Context(), "db")
		return err == nil && i.Applied == 1
	})

	// The failure. The publish whose outcome is not known is nacked.
	must(os.Rename(filepath.Join(data, "log"), filepath.Join(dir, "away")))
	if publish("q", "uncertain") {
		t.Fatal("a publish was confirmed without its log")
	}
	var ready string
	eventually(t, "the server is not ready", func() bool {
		var code int
		code, ready = request(t, "GET", base+"/readyz", "")
		return code == http.StatusServiceUnavailable && strings.Contains(ready, "opening")
	})
	if !strings.Contains(ready, string(surgetank.CodeUnavailable)) {
		t.Error(ready)
	}
	if code, body := request(t, "GET", base+"/healthz", ""); code != http.StatusOK {
		t.Error("not alive:", code, body)
	}
	if code, body := request(t, "GET", base+"/metrics", ""); code != http.StatusOK || !strings.Contains(body, `surgetank_broker_state{state="opening"} 1`) {
		t.Error("metrics:", code)
	}
	must(first.Ack(false)) // its lease has ended
	// A publisher is told that it is blocked, and its message waits.
	held, err := out.PublishWithDeferredConfirm("", "q", false, false, amqp091.Publishing{Body: []byte("held")})
	must(err)
	if b := <-blocked; !b.Active {
		t.Error(b)
	}
	if s.Err() != nil {
		t.Error(s.Err())
	}
	select {
	case <-s.Done():
		t.Error("the server wants to stop")
	default:
	}

	must(os.Rename(filepath.Join(dir, "away"), filepath.Join(data, "log")))
	eventually(t, "the server is ready", func() bool { code, _ := request(t, "GET", base+"/readyz", ""); return code == http.StatusOK })
	if d := next(got); string(d.Body) != "first" || !d.Redelivered {
		t.Errorf("%s, redelivered %v", d.Body, d.Redelivered)
	} else {
		must(d.Ack(false))
	}
	if ok, err := held.WaitContext(t.Context()); !ok || err != nil {
		t.Error("the message that waited was refused:", err)
	}
	if !publish("q", "second") || !publish(mine.Name, "to myself") || !publish("orders", "row 2") {
		t.Error("a publish was refused")
	}
	for {
		d := next(got)
		must(d.Ack(false))
		if string(d.Body) == "second" {
			break
		}
		if string(d.Body) != "uncertain" && string(d.Body) != "held" {
			t.Errorf("%s was delivered again after its ack", d.Body)
		}
	}
	if d := next(own); string(d.Body) != "to myself" {
		t.Error(string(d.Body))
	}
	if code, body := request(t, "POST", base+"/v1/queues/orders/messages", "row 3"); code != http.StatusCreated {
		t.Error(code, body)
	}
	db, err := sql.Open("sqlite", rows)
	must(err)
	defer db.Close()
	count := func() (all, different int) {
		must(db.QueryRow("SELECT count(*), count(DISTINCT id) FROM rows").Scan(&all, &different))
		return all, different
	}
	eventually(t, "the sink continues", func() bool { all, _ := count(); return all >= 3 })
	if all, different := count(); all != 3 || different != 3 {
		t.Errorf("%d rows, %d different", all, different)
	}
	// Acks have no answer of their own but close-ok. This channel has acked before the failure.
	if err, ok := in.Close().(*amqp091.Error); !ok || err.Code != amqp091.PreconditionFailed {
		t.Errorf("closing a channel whose acks can be lost: %v", err)
	}
	if err := out.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-closed:
		t.Error("the connection was closed:", err)
	default:
	}
	if h := s.broker.Health(); h.State != embedded.StateServing || h.Reopenings != 1 {
		t.Errorf("%+v", h)
	}
}
