//go:build linux

package main

import (
	"context"
	"time"

	"github.com/surgetank/surgetank/test/kit/client"
	"github.com/surgetank/surgetank/test/kit/ledger"
)

// web uses the HTTP API.
type web struct{ *client.HTTP }

func newWeb(p *process) *web { return &web{client.NewHTTP(p.URL, 30*time.Second)} }

// outgoing is one message to publish.
type outgoing struct {
	client.Message
	s *ledger.Stream
	h ledger.Hold
}

// publish sends messages as one request.
func (w *web) publish(ctx context.Context, queue string, batch []outgoing) (duplicates int, err error) {
	list := make([]client.Message, len(batch))
	for i := range batch {
		list[i] = batch[i].Message
	}
	_, duplicates, a := w.Publish(ctx, queue, list)
	return duplicates, a.Err()
}

// incoming is a message in an answer of the API.
type incoming struct {
	receipt string
	h       ledger.Hold
}
