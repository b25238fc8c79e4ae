package serve_test

import (
	"context"
	"fmt"
	"log"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/client"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/serve"
	"github.com/surgetank/surgetank/worker"
)

// One program has the queue and serves it. Another program connects with package client and runs a
// worker. Here both are one program.
func Example_clientAndWorker() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	b, err := embedded.Memory(embedded.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	if _, _, err := b.DeclareQueue(ctx, "orders", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		log.Fatal(err)
	}
	server, err := serve.Start(ctx, b, serve.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Stop(context.Background())

	c, err := client.Dial("http://"+server.HTTP(), client.Options{User: "guest", Password: "guest"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := surgetank.Send(ctx, c, "orders", surgetank.Message{Body: []byte("order 7")}); err != nil {
		log.Fatal(err)
	}
	err = worker.Run(ctx, c, "orders", func(_ context.Context, d *surgetank.Delivery) error {
		fmt.Printf("handled %s\n", d.Body)
		stop()
		return nil
	}, worker.Options{})
	fmt.Println(err)
	// Output:
	// handled order 7
	// <nil>
}
