package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/surgetank/surgetank"
)

type consumeCmd struct {
	Queue  string        `arg:"" help:"The queue's name."`
	Max    int           `short:"n" placeholder:"N" help:"Messages at most. Default: all that are available now; 1,000 without --ack."`
	Ack    bool          `help:"Ack each batch once it is printed. Without it the messages go back at the end, without counting an attempt."`
	Follow bool          `short:"f" help:"Wait for further messages until interrupted."`
	Wait   time.Duration `default:"1s" help:"How long to wait for the first message, and for each further one. Default ${default}."`
	Lease  time.Duration `placeholder:"DURATION" help:"Lease of each message. Default: the queue's."`
	vhostFlag
	remote
	output
}

// maxHeld limits how many messages consume leases at a time without --ack.
const maxHeld = 1000

// Run prints bodies unchanged, each followed by a line end; with --json it prints whole messages.
// Output is written before the ack is sent. A crash in between prints a message again but never
// loses it.
func (c *consumeCmd) Run(s *session) error {
	return c.with(func(b surgetank.Broker) error {
		name, err := c.full(c.Queue)
		if err != nil {
			return err
		}
		if !c.Ack && (c.Max == 0 || c.Max > maxHeld) {
			c.Max = maxHeld
		}
		n, held := 0, []surgetank.Settlement(nil)
		err = c.loop(s, b, name, &n, &held)
		if back := giveBack(s.ctx, b, held); err == nil {
			err = back
		}
		if errors.Is(err, context.Canceled) && s.ctx.Err() != nil {
			err = nil // an interrupt is the normal end of --follow
		}
		word := "given back"
		if c.Ack {
			word = "acked"
		}
		fmt.Fprintf(s.stderr, "surgetank: %s printed and %s\n", plural(n, "message"), word)
		return err
	})
}

func (c *consumeCmd) loop(s *session, b surgetank.Broker, queue string, n *int, held *[]surgetank.Settlement) error {
	for c.Max == 0 || *n < c.Max {
		most := 100
		if c.Max > 0 {
			most = min(most, c.Max-*n)
		}
		wait := c.Wait
		if c.Follow {
			wait = 20 * time.Second
		}
		messages, err := b.Receive(s.ctx, queue, surgetank.ReceiveOptions{Max: most, Wait: wait, Lease: c.Lease, Name: "surgetank consume"})
		if err != nil {
			if s.ctx.Err() != nil {
				return s.ctx.Err()
			}
			if c.outlasts(s, err) {
				continue
			}
			return err
		}
		if len(messages) == 0 {
			if c.Follow && s.ctx.Err() == nil {
				continue
			}
			return nil
		}
		acks := make([]surgetank.Settlement, len(messages))
		for i, d := range messages {
			acks[i] = surgetank.Settlement{Receipt: d.Receipt, Op: surgetank.Ack}
		}
		if err := c.write(s, messages); err != nil {
			*held = append(*held, acks...)
			return fmt.Errorf("printing: %w", err)
		}
		*n += len(messages)
		if !c.Ack {
			*held = append(*held, acks...)
			continue
		}
		// Printed messages must be acked even after an interrupt.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 30*time.Second)
		results, err := b.Settle(ctx, acks)
		cancel()
		if err != nil {
			err = fmt.Errorf("acking what was printed failed, and it may come again: %w", err)
			if c.outlasts(s, err) {
				continue
			}
			return err
		}
		for i, err := range results {
			if err != nil {
				return fmt.Errorf("message %s was printed, but its ack failed, and it will come again: %w", messages[i].ID, err)
			}
		}
	}
	return nil
}

// outlasts reports whether to continue after an error: --follow survives a restart of the server.
func (c *consumeCmd) outlasts(s *session, err error) bool {
	if !c.Follow {
		return false
	}
	switch surgetank.CodeOf(err) {
	case surgetank.CodeClosed, surgetank.CodeUnavailable, surgetank.CodeUncertain, surgetank.CodeBusy:
	default:
		return false
	}
	fmt.Fprintf(s.stderr, "surgetank: %v; trying again\n", err)
	select {
	case <-time.After(time.Second):
		return true
	case <-s.ctx.Done():
		return false
	}
}

func (c *consumeCmd) write(s *session, messages []surgetank.Delivery) error {
	if !c.JSON {
		return writeBodies(s.stdout, messages)
	}
	for _, d := range messages {
		if err := writeJSON(s.stdout, shapeMessage(d)); err != nil {
			return err
		}
	}
	return nil
}

// giveBack returns leases at once without counting an attempt, so reading messages uses up no
// attempts.
func giveBack(ctx context.Context, b surgetank.Broker, held []surgetank.Settlement) error {
	if len(held) == 0 {
		return nil
	}
	for i := range held {
		held[i].Op, held[i].Uncounted = surgetank.Nack, true
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if _, err := b.Settle(ctx, held); err != nil {
		return fmt.Errorf("giving messages back (they come back by themselves when their leases end): %w", err)
	}
	return nil
}
