package client

import (
	"context"
	"encoding/json"
	"time"

	"github.com/surgetank/surgetank"
)

// Limits of the server, from its documentation: messages of one receive, and how long one poll
// waits.
const (
	maxReceive = 1000
	pollWait   = 20 * time.Second
)

// Receive leases messages once. See surgetank.Broker. Over HTTP a lease has a deadline, and at most
// 1,000 messages are returned.
func (c *Client) Receive(ctx context.Context, queue string, opts surgetank.ReceiveOptions) ([]surgetank.Delivery, error) {
	if err := checkName(queue); err != nil {
		return nil, err
	}
	if opts.Lease == surgetank.LeaseForever {
		return nil, surgetank.FieldErrorf("lease", "over HTTP a received message is leased until a deadline; set a lease, or subscribe")
	}
	m := map[string]any{"max": min(max(1, opts.Max), maxReceive)}
	if opts.Lease != 0 {
		m["lease"] = opts.Lease.String()
	}
	if opts.MaxBytes > 0 {
		m["max_bytes"] = min(opts.MaxBytes, 64<<20)
	}
	if opts.NoAck {
		m["ack"] = false
	}
	if opts.Name != "" {
		m["name"] = opts.Name
	}
	for until := time.Now().Add(opts.Wait); ; {
		wait := min(max(0, time.Until(until)), pollWait)
		m["wait"] = wait.String()
		body, err := json.Marshal(m)
		if err != nil {
			return nil, surgetank.Errorf(surgetank.CodeInternal, "the request could not be encoded: %w", err)
		}
		var w wireMessages
		// If an answer is lost, the repeated request returns other messages. The messages of the
		// lost answer are delivered again after the server notices, or at the latest after their
		// leases. With NoAck they would be lost.
		if err := c.ask(ctx, request{method: "POST", path: queuePath(queue, "/receive"), body: body, wait: wait, repeat: !opts.NoAck}, &w); err != nil {
			return nil, err
		}
		if len(w.Messages) > 0 || time.Now().After(until) || opts.Wait <= 0 {
			return w.appendTo(nil)
		}
	}
}
