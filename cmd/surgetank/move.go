package main

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
)

type queueMoveCmd struct {
	queueArg
	Shard     int           `required:"" placeholder:"N" help:"The new shard, from 1."`
	LeaseWait time.Duration `placeholder:"DURATION" default:"30s" help:"How long the end of the move waits for leased messages. Those that are still leased afterwards are delivered again. Default ${default}."`
}

// moveShape is the JSON output of move.
type moveShape struct {
	Queue    string `json:"queue"`
	From     int    `json:"from"`
	Shard    int    `json:"shard"`
	Messages int64  `json:"messages"`
	Returned int64  `json:"returned"`
}

// movePoll is how often the progress of a move is read.
const movePoll = time.Second

func (c *queueMoveCmd) Run(s *session) error {
	return c.with(func(b surgetank.Broker) error {
		name, err := c.full(c.Queue)
		if err != nil {
			return err
		}
		o := surgetank.MoveOptions{Shard: c.Shard, LeaseWait: c.LeaseWait}
		if o.LeaseWait <= 0 {
			o.LeaseWait = -1
		}
		r, err := c.move(s, b, name, o)
		if err != nil {
			return err
		}
		return c.print(s.stdout, moveShape{c.Queue, r.From, r.Shard, r.Messages, r.Returned}, func(w io.Writer) error {
			fmt.Fprintf(w, "moved queue %s from shard %d to shard %d", printable(c.Queue), r.From, r.Shard)
			if r.Returned > 0 {
				fmt.Fprintf(w, "; %s leased too long and will be delivered again", pluralWas(r.Returned, "message"))
			}
			_, err := fmt.Fprintln(w)
			return err
		})
	})
}

// pluralWas is plural with the fitting verb.
func pluralWas(n int64, what string) string {
	if n == 1 {
		return plural(n, what) + " was"
	}
	return plural(n, what) + " were"
}

// move moves the queue. On a terminal it shows the progress meanwhile.
func (c *queueMoveCmd) move(s *session, b surgetank.Broker, name string, o surgetank.MoveOptions) (surgetank.MoveResult, error) {
	if _, ok := isTerminal(s.stderr); !ok {
		return b.MoveQueue(s.ctx, name, o)
	}
	var state atomic.Pointer[surgetank.MoveInfo]
	line := startProgress(s.stderr, func() string {
		m := state.Load()
		if m == nil {
			return "moving"
		}
		return moveLine(m)
	})
	defer line.finish()
	ctx, stop := context.WithCancel(s.ctx)
	polled := make(chan struct{})
	go func() {
		defer close(polled)
		t := time.NewTicker(movePoll)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
			if q, err := b.Queue(ctx, name); err == nil { // the move itself reports errors
				state.Store(q.Moving)
			}
		}
	}()
	r, err := b.MoveQueue(s.ctx, name, o)
	stop()
	<-polled
	return r, err
}

// moveLine says what a move does.
func moveLine(m *surgetank.MoveInfo) string {
	switch m.State {
	case surgetank.MoveWaiting:
		return fmt.Sprintf("%s copied, waiting for leased messages", plural(m.Copied, "message"))
	case surgetank.MoveSwitching:
		return fmt.Sprintf("%s copied, switching", plural(m.Copied, "message"))
	}
	return fmt.Sprintf("%s copied, about %s left", plural(m.Copied, "message"), count(m.Left))
}
