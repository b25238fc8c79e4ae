package main

import (
	"context"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/client"
)

// Script commands for actions that the command line does not have, because other programs publish
// and consume.

func dial(ts *testscript.TestScript) (context.Context, *client.Client) {
	b, err := client.Dial(ts.Getenv("SURGETANK_SERVER"), client.Options{})
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	ts.Defer(cancel)
	return ctx, b
}

// put QUEUE GROUP DELAY BODY… publishes messages. GROUP "-" means no group.
func put(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: put QUEUE GROUP DELAY BODY…")
	}
	delay, err := time.ParseDuration(args[2])
	ts.Check(err)
	m := surgetank.Message{Delay: delay}
	if args[1] != "-" {
		m.Group = args[1]
	}
	ctx, b := dial(ts)
	defer b.Close()
	for _, body := range args[3:] {
		m.Body = []byte(body)
		results, err := b.Publish(ctx, []surgetank.Publishing{{Queues: args[:1], Message: m}})
		ts.Check(err)
		ts.Check(results[0].Err)
	}
}

// nack QUEUE N DELAY REASON receives N messages and nacks them.
func nack(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: nack QUEUE N DELAY REASON")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	delay, err := time.ParseDuration(args[2])
	ts.Check(err)
	ctx, b := dial(ts)
	defer b.Close()
	list, err := b.Receive(ctx, args[0], surgetank.ReceiveOptions{Max: n})
	ts.Check(err)
	if len(list) != n {
		ts.Fatalf("%d messages came, not %d", len(list), n)
	}
	for _, d := range list {
		results, err := b.Settle(ctx, []surgetank.Settlement{{Receipt: d.Receipt, Op: surgetank.Nack, Delay: delay, Reason: args[3]}})
		ts.Check(err)
		ts.Check(results[0])
	}
}
