package client_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/client"
)

// A program publishes an order to a server and receives it again. If Publish and its result have a
// nil error, the message is on disk.
func Example() {
	ctx := context.Background()
	c, err := client.Dial("http://127.0.0.1:8080", client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, _, err := c.DeclareQueue(ctx, "orders", surgetank.QueueConfig{DedupWindow: time.Hour}, surgetank.DeclareIfAbsent); err != nil {
		log.Fatal(err)
	}
	results, err := c.Publish(ctx, []surgetank.Publishing{{Queues: []string{"orders"},
		Message: surgetank.Message{Body: []byte(`{"total": 7}`), ContentType: "application/json", DedupID: "order-1001"}}})
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		log.Fatal(err)
	}
	got, err := c.Receive(ctx, "orders", surgetank.ReceiveOptions{Wait: 10 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range got {
		fmt.Printf("%s\n", d.Body)
		if _, err := c.Settle(ctx, []surgetank.Settlement{{Receipt: d.Receipt, Op: surgetank.Ack}}); err != nil {
			log.Fatal(err)
		}
	}
}
