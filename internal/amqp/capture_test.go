package amqp

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank/internal/amqp/amqptest"
)

// recorder records the bytes that a client writes.
type recorder struct {
	net.Conn
	mu   sync.Mutex
	sent bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	r.sent.Write(b)
	r.mu.Unlock()
	return r.Conn.Write(b)
}

// TestCapture records RabbitMQ's Go client in a session that uses most of the protocol. It writes
// the bytes as seeds for the fuzzers to the directory in SURGETANK_TEST_CAPTURE. The fuzzers read
// seeds from wire/testdata/captured.
func TestCapture(t *testing.T) {
	dir := os.Getenv("SURGETANK_TEST_CAPTURE")
	bn := start(t, Limits{})
	var r *recorder
	conn := amqptest.Must[*amqp091.Connection](t)(amqp091.DialConfig(bn.url(), amqp091.Config{Heartbeat: time.Minute, Dial: func(network, addr string) (net.Conn, error) {
		nc, err := net.Dial(network, addr)
		r = &recorder{Conn: nc}
		return r, err
	}}))
	c := (&client{t: t, conn: conn}).open()
	c.exchange("x", "topic", amqp091.Table{"alternate-exchange": "amq.fanout"})
	c.queue("q", amqp091.Table{"x-message-ttl": int32(60000), "x-dead-letter-exchange": "x", "x-max-length": int64(100)})
	c.bind("q", "a.*", "x", amqp091.Table{"k": "v"})
	c.ok(c.ExchangeBind("x", "#", "amq.topic", false, nil))
	c.ok(c.Qos(10, 0, false))
	c.ok(c.Confirm(false))
	c.confirmed("x", "a.b", amqp091.Publishing{ContentType: "text/plain", DeliveryMode: 2, Priority: 1, Expiration: "1000", MessageId: "m", Timestamp: time.Unix(1, 0),
		Headers: amqp091.Table{"x-delay": int32(0), "CC": []any{"a.c"}, "t": amqp091.Table{"n": int64(1)}}, Body: []byte("body")})
	c.bodies("", "q", "", "1", "2", "3")
	ds := amqptest.Must[<-chan amqp091.Delivery](t)(c.Consume("q", "tag", false, false, false, false, amqp091.Table{"x-priority": int32(1)}))
	c.ok(amqptest.Must[amqp091.Delivery](t)(next(t, ds), nil).Ack(false))
	d := next(t, ds)
	c.ok(d.Nack(false, true))
	c.ok(next(t, ds).Reject(false))
	c.ok(c.Cancel("tag", false))
	c.ok(c.Recover(true))
	c.ok(c.PublishWithContext(context.Background(), "", "none", true, false, amqp091.Publishing{Body: []byte("back")}))
	tx := c.open()
	tx.ok(tx.Tx())
	tx.bodies("", "q", "in tx")
	tx.ok(tx.TxCommit())
	tx.ok(tx.TxRollback())
	if _, _, err := tx.Get("q", true); err != nil {
		t.Error(err)
	}
	amqptest.Must[int](t)(tx.QueuePurge("q", false))
	c.ok(c.QueueUnbind("q", "a.*", "x", amqp091.Table{"k": "v"}))
	amqptest.Must[int](t)(c.QueueDelete("q", false, false, false))
	c.ok(c.ExchangeDelete("x", false, false))
	c.ok(tx.Close())
	c.ok(conn.Close())
	if dir == "" {
		return
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "amqp091-go"), r.sent.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
