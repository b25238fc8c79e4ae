package flow

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/pgtest"
)

// A consumer whose lease has ended cannot overwrite the work of the message's next consumer. The
// next consumer uses AMQP and reads the token in a header.
func TestFencingTokens(t *testing.T) {
	b, address := serve(t, "Fencing tokens", func(text string) string { return strings.Replace(text, "lease: 30s", "lease: 100ms", 1) })
	statements := examples(t, "Fencing tokens", "sql")
	pg := pgtest.Shared(t)
	dsn := pg.Database(t)
	pg.Exec(t, dsn, statements[0])
	db, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	write := func(balance string, token int64) int64 {
		t.Helper()
		tag, err := db.Exec(t.Context(), statements[1], "ada", balance, token)
		if err != nil {
			t.Fatal(err)
		}
		return tag.RowsAffected()
	}

	if _, err := surgetank.Send(t.Context(), b, "accounts", surgetank.Message{Group: "ada", Body: []byte("10")}); err != nil {
		t.Fatal(err)
	}
	first, err := b.Receive(t.Context(), "accounts", surgetank.ReceiveOptions{Wait: time.Minute})
	if err != nil || len(first) != 1 {
		t.Fatal(first, err)
	}
	conn, err := amqp.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	deliveries, err := ch.Consume("accounts", "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	second := <-deliveries // the second delivery, after the end of the first lease
	token, ok := second.Headers["x-fencing-token"].(int64)
	if old := first[0].FencingToken; !ok || old == 0 || token <= old {
		t.Fatalf("the first lease has the token %d, the second %v", old, second.Headers)
	}
	if n := write("10", token); n != 1 {
		t.Errorf("the holder of the lease wrote %d rows", n)
	}
	if n := write("0", first[0].FencingToken); n != 0 {
		t.Errorf("the consumer without a lease wrote %d rows", n)
	}
	if err := surgetank.AckAll(t.Context(), b, first...); surgetank.CodeOf(err) != surgetank.CodeLeaseLost {
		t.Errorf("its ack: %v", err)
	}
	if err := second.Ack(false); err != nil {
		t.Error(err)
	}
	if rows := pg.Query(t, dsn, "select balance from accounts"); rows[0][0] != "10" {
		t.Errorf("balance %v", rows)
	}
}

func TestMain(m *testing.M) {
	defer pgtest.CloseShared()
	m.Run()
}
