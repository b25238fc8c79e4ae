package server

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank/internal/config"
)

// A file with a policy, a queue and a sink serves a RabbitMQ client that only declares its queues
// and publishes. Each message is written to a database once, although the client publishes some
// twice.
func TestAFileGivesAPlainClientASink(t *testing.T) {
	dir := t.TempDir()
	db := filepath.Join(dir, "orders.db")
	text := fmt.Sprintf(`
policies:
  once: {pattern: "^orders$", apply_to: queues, settings: {dedup: {window: 1h}, retry: {max_attempts: 3, initial: 1ms}, max-length: 100000}}
queues:
  orders: {group_by: header:customer}
sinks:
  orders-to-db:
    queue: orders
    sqlite: {path: %q, table: orders, create_table: true, columns: {id: message.id, customer: message.group, n: $.n}}
`, db)
	file, err := config.Parse("f.yaml", []byte(text), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	c := local(filepath.Join(dir, "data"))
	c.AMQP = "127.0.0.1:0"
	s := start(t, Options{Config: c, File: file})
	conn, err := amqp091.Dial("amqp://guest:guest@" + s.Addresses().AMQP + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare("orders", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	const n = 50
	for i := range 2 * n {
		m := amqp091.Publishing{Headers: amqp091.Table{"customer": fmt.Sprint("c", i%3), "x-deduplication-header": fmt.Sprint(i % n)}, Body: fmt.Appendf(nil, `{"n":%d}`, i%n)}
		d, err := ch.PublishWithDeferredConfirm("", "orders", false, false, m)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		ok, err := d.WaitContext(ctx)
		cancel()
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	info, err := s.doored.Queue(t.Context(), "orders")
	if err != nil || info.Policy != "once" || info.Duplicates != n || info.Own == nil || info.Own.DedupWindow != 0 {
		t.Errorf("%+v, %v", info, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for { // waits for the sink; a query takes some time, so no further pause is needed
		if info, err = s.doored.Queue(ctx, "orders"); err != nil {
			t.Fatal(err)
		}
		if info.Ready+info.Leased+info.Delayed+info.Blocked == 0 {
			break
		}
	}
	conn.Close()
	rows, err := sql.Open("sqlite", db)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var count, distinct, groups int
	if err := rows.QueryRow(`SELECT count(*), count(DISTINCT n), count(DISTINCT customer) FROM orders`).Scan(&count, &distinct, &groups); err != nil {
		t.Fatal(err)
	}
	if count != n || distinct != n || groups != 3 {
		t.Errorf("%d rows, %d different, %d customers; want %d, %d, 3", count, distinct, groups, n, n)
	}
}
