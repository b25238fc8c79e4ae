package serve_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/client"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/serve"
)

// An embedded broker with an HTTP door: other programs publish, and this program consumes.
func ExampleStart() {
	ctx := context.Background()
	b, err := embedded.Memory(embedded.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	if _, _, err := b.DeclareQueue(ctx, "orders", surgetank.QueueConfig{}, surgetank.DeclareIfAbsent); err != nil {
		log.Fatal(err)
	}
	s, err := serve.Start(ctx, b, serve.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Stop(ctx)

	other, err := client.Dial("http://"+s.HTTP(), client.Options{}) // in another program
	if err != nil {
		log.Fatal(err)
	}
	defer other.Close()
	if _, err := surgetank.Send(ctx, other, "orders", surgetank.Message{Body: []byte("order 1")}); err != nil {
		log.Fatal(err)
	}

	deliveries, err := b.Receive(ctx, "orders", surgetank.ReceiveOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", deliveries[0].Body)
	// Output: order 1
}

// Doors open and close while the broker stays open. The test runs with a broker in memory and with
// one on disk.
func TestDoorsComeAndGo(t *testing.T) {
	ctx := t.Context()
	for _, name := range []string{"memory", "disk"} {
		t.Run(name, func(t *testing.T) {
			b, err := embedded.Memory(embedded.Options{})
			if name == "disk" {
				b, err = embedded.Open(filepath.Join(t.TempDir(), "data"), embedded.Options{})
			}
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			for round := range 2 {
				s, err := serve.Start(ctx, b, serve.Options{AMQP: "127.0.0.1:0"})
				if err != nil {
					t.Fatal(err)
				}
				conn, err := amqp.Dial("amqp://guest:guest@" + s.AMQP())
				if err != nil {
					t.Fatal(err)
				}
				ch, err := conn.Channel()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := ch.QueueDeclare("q", true, false, false, false, nil); err != nil {
					t.Fatal(err)
				}
				if err := ch.PublishWithContext(ctx, "", "q", false, false, amqp.Publishing{Body: []byte("{}")}); err != nil {
					t.Fatal(err)
				}
				if err := conn.Close(); err != nil {
					t.Fatal(err)
				}
				answer, err := http.Get("http://" + s.HTTP() + "/metrics")
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(answer.Body)
				if err := answer.Body.Close(); err != nil {
					t.Fatal(err)
				}
				if want := fmt.Sprintf(`surgetank_queue_messages{queue="q",state="ready",vhost="/"} %d`, round+1); err != nil || !strings.Contains(string(text), want) {
					t.Errorf("round %d: %v, no %s in the metrics", round, err, want)
				}
				if err := s.Stop(ctx); err != nil {
					t.Fatal(err)
				}
				if q, err := b.Queue(ctx, "q"); err != nil || q.Ready != int64(round+1) {
					t.Errorf("round %d: %+v, %v", round, q, err)
				}
			}
		})
	}
}

func TestStartRefuses(t *testing.T) {
	if _, err := serve.Start(t.Context(), nil, serve.Options{}); surgetank.CodeOf(err) != surgetank.CodeInvalid {
		t.Error("no broker:", err)
	}
	b, err := embedded.Memory(embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, o := range []serve.Options{{HTTP: "nowhere"}, {HTTP: serve.Off}, {TLSCert: "x"}, {HTTP: "0.0.0.0:0"}} {
		if _, err := serve.Start(t.Context(), b, o); err == nil {
			t.Errorf("a server was started with %+v", o)
		}
	}
	if h := b.Health(); h.Err != nil {
		t.Error("the broker did not continue:", h.Err)
	}
}
