package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/settings"
)

// checkName returns CodeInvalid for a name that a path cannot contain.
func checkName(full string) error { return fullname.Validate(full) }

// DeclareQueue creates or changes a queue. See surgetank.Broker.
func (c *Client) DeclareQueue(ctx context.Context, name string, config surgetank.QueueConfig, mode surgetank.DeclareMode) (surgetank.QueueInfo, bool, error) {
	var none surgetank.QueueInfo
	if err := checkName(name); err != nil {
		return none, false, err
	}
	if err := settings.Validate(config); err != nil {
		return none, false, err
	}
	word, ok := map[surgetank.DeclareMode]string{surgetank.DeclareOrUpdate: "create_or_update", surgetank.DeclareIfAbsent: "create_if_absent",
		surgetank.DeclareNew: "create", surgetank.DeclareUpdate: "update"}[mode]
	if !ok {
		return none, false, surgetank.FieldErrorf("mode", "there is no declare mode %d", mode)
	}
	vhost, _ := fullname.Split(name)
	if dl := config.DeadLetter; dl != "" && dl != surgetank.DeadLetterDrop {
		if v, _ := fullname.Split(dl); v != vhost && v != settings.DoorVhost {
			return none, false, surgetank.FieldErrorf("dead_letter", "over HTTP dead letters stay in their virtual host; %q is in another", dl)
		}
	}
	body, err := json.Marshal(settings.Encode(settings.Unqualify(config)))
	if err != nil {
		return none, false, surgetank.Errorf(surgetank.CodeInternal, "the settings could not be encoded: %w", err)
	}
	var w settings.Queue
	var status int
	if err := c.ask(ctx, request{method: "PUT", path: queuePath(name, "?mode="+word), body: body, repeat: mode != surgetank.DeclareNew, status: &status}, &w); err != nil {
		return none, false, err
	}
	info, err := w.Info()
	return info, status == http.StatusCreated, err
}

// DeleteQueue removes a queue. See surgetank.Broker.
func (c *Client) DeleteQueue(ctx context.Context, name string, opts surgetank.DeleteOptions) (int64, error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	var ok struct{ Removed int64 }
	path := queuePath(name, "?if_unused="+strconv.FormatBool(opts.IfUnused)+"&if_empty="+strconv.FormatBool(opts.IfEmpty))
	err := c.ask(ctx, request{method: "DELETE", path: path}, &ok)
	return ok.Removed, err
}

// PurgeQueue drops the messages that are not leased. See surgetank.Broker.
func (c *Client) PurgeQueue(ctx context.Context, name string) (int64, error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	var ok struct{ Purged int64 }
	err := c.ask(ctx, request{method: "POST", path: queuePath(name, "/purge")}, &ok)
	return ok.Purged, err
}

// DropDamaged drops the messages that cannot be read. See surgetank.Broker.
func (c *Client) DropDamaged(ctx context.Context, name string) (int64, error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	var ok struct{ Purged int64 }
	err := c.ask(ctx, request{method: "POST", path: queuePath(name, "/purge?damaged=true")}, &ok)
	return ok.Purged, err
}

// PauseQueue stops deliveries. See surgetank.Broker.
func (c *Client) PauseQueue(ctx context.Context, name string, d time.Duration) error {
	if err := checkName(name); err != nil {
		return err
	}
	r := request{method: "POST", path: queuePath(name, "/pause"), repeat: true}
	if d != 0 {
		r.body = fmt.Appendf(nil, `{"for":%q}`, settings.FormatDuration(d))
	}
	return c.ask(ctx, r, nil)
}

// ResumeQueue ends a pause. See surgetank.Broker.
func (c *Client) ResumeQueue(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return c.ask(ctx, request{method: "POST", path: queuePath(name, "/resume"), repeat: true}, nil)
}

// OpenBreaker stops deliveries to the target of a queue. See surgetank.Broker.
func (c *Client) OpenBreaker(ctx context.Context, name string, opts surgetank.BreakerOptions) error {
	return c.breaker(ctx, name, "open", opts)
}

// CloseBreaker ends an outage. See surgetank.Broker.
func (c *Client) CloseBreaker(ctx context.Context, name string, opts surgetank.BreakerOptions) error {
	return c.breaker(ctx, name, "close", opts)
}

func (c *Client) breaker(ctx context.Context, name, op string, opts surgetank.BreakerOptions) error {
	if err := checkName(name); err != nil {
		return err
	}
	body := append(appendMember(fmt.Appendf(nil, `{"op":%q`, op), "reason", clip(opts.Reason)), '}')
	return c.ask(ctx, request{method: "POST", path: queuePath(name, "/breaker"), repeat: true, body: body}, nil)
}

// LevelHistory reads the history of a queue's limit and breaker. See surgetank.Broker.
func (c *Client) LevelHistory(ctx context.Context, name string) (surgetank.LevelHistory, error) {
	if err := checkName(name); err != nil {
		return surgetank.LevelHistory{}, err
	}
	var h settings.LevelHistory
	err := c.ask(ctx, request{method: "GET", path: queuePath(name, "/level/history"), repeat: true}, &h)
	return h.History(), err
}

// Redrive moves messages. The server answers at the end, so Progress is called once. See
// surgetank.Broker.
func (c *Client) Redrive(ctx context.Context, from string, opts surgetank.RedriveOptions) (surgetank.RedriveResult, error) {
	var none surgetank.RedriveResult
	if err := checkName(from); err != nil {
		return none, err
	}
	if !(opts.Rate >= 0 && opts.Rate <= 1e9) {
		return none, surgetank.FieldErrorf("rate", "rate must be between 0 and 1e9 per second, not %v", float64(opts.Rate))
	}
	m := map[string]any{}
	vhost, _ := fullname.Split(from)
	for field, full := range map[string]string{"to": opts.To, "queue": opts.Queue} {
		if full == "" {
			continue
		}
		v, q := fullname.Split(full)
		if v != vhost {
			return none, surgetank.FieldErrorf(field, "over HTTP messages are redriven inside their virtual host; %q is in another", full)
		}
		m[field] = q
	}
	if opts.Max > 0 {
		m["max"] = opts.Max
	}
	if opts.Rate > 0 {
		m["rate"] = settings.FormatRate(opts.Rate)
	}
	if opts.DryRun {
		m["dry_run"] = true
	}
	if opts.Reason != "" {
		m["reason"] = opts.Reason
	}
	body, err := json.Marshal(m)
	if err != nil {
		return none, surgetank.Errorf(surgetank.CodeInternal, "the request could not be encoded: %w", err)
	}
	var r struct{ Matched, Moved, Skipped, Full int64 }
	// The rate decides how long the redrive takes; ctx can end it.
	if err := c.ask(ctx, request{method: "POST", path: queuePath(from, "/redrive"), body: body, wait: surgetank.MaxDuration / 2, repeat: opts.DryRun}, &r); err != nil {
		return none, err
	}
	result := surgetank.RedriveResult{Matched: r.Matched, Moved: r.Moved, Skipped: r.Skipped, Full: r.Full}
	if opts.Progress != nil {
		if f := c.calls.Do("RedriveOptions.Progress", func() { opts.Progress(r.Moved) }); f != nil {
			return result, surgetank.Errorf(surgetank.CodeInvalid, "the redrive is done, but its function Progress failed: %w", f)
		}
	}
	return result, nil
}

// Queue reads one queue. See surgetank.Broker.
func (c *Client) Queue(ctx context.Context, name string) (surgetank.QueueInfo, error) {
	if err := checkName(name); err != nil {
		return surgetank.QueueInfo{}, err
	}
	var w settings.Queue
	if err := c.ask(ctx, request{method: "GET", path: queuePath(name, ""), repeat: true}, &w); err != nil {
		return surgetank.QueueInfo{}, err
	}
	return w.Info()
}

// Queues reads all queues that the user may see, in every virtual host. If a shard of the server is
// not open, Queues returns the queues of the others, and CodeUnavailable. See surgetank.Broker.
func (c *Client) Queues(ctx context.Context) ([]surgetank.QueueInfo, error) {
	var all []surgetank.QueueInfo
	var partial error
	for after := ""; ; {
		var page struct {
			Queues     []settings.Queue
			Next       string
			Incomplete string
		}
		q := url.Values{"all_vhosts": {"true"}}
		if after != "" {
			q.Set("after", after)
		}
		if err := c.ask(ctx, request{method: "GET", path: "/v1/queues?" + q.Encode(), repeat: true}, &page); err != nil {
			return nil, err
		}
		for i := range page.Queues {
			info, err := page.Queues[i].Info()
			if err != nil {
				return nil, err
			}
			all = append(all, info)
		}
		if page.Incomplete != "" {
			partial = &door.PartialError{Err: surgetank.Errorf(surgetank.CodeUnavailable, "%s", page.Incomplete)}
		}
		if after = page.Next; after == "" {
			return all, partial
		}
	}
}

// Explain says why messages wait. See surgetank.Administrator.
func (c *Client) Explain(ctx context.Context, queue string, opts surgetank.ExplainOptions) (surgetank.Explanation, error) {
	if err := checkName(queue); err != nil {
		return surgetank.Explanation{}, err
	}
	q := url.Values{}
	if opts.Group != "" {
		q.Set("group", opts.Group)
	}
	if opts.ID != (surgetank.MessageID{}) {
		q.Set("id", opts.ID.String())
	}
	var w settings.Why
	if err := c.ask(ctx, request{method: "GET", path: queuePath(queue, "/why?"+q.Encode()), repeat: true}, &w); err != nil {
		return surgetank.Explanation{}, err
	}
	return w.Explanation()
}

// Peek returns messages without leasing them. See surgetank.Broker.
func (c *Client) Peek(ctx context.Context, queue string, opts surgetank.PeekOptions) ([]surgetank.Delivery, error) {
	if err := checkName(queue); err != nil {
		return nil, err
	}
	var all []surgetank.Delivery
	if opts.MaxBytes == 0 {
		opts.MaxBytes = 4 << 20
	}
	for most, room := opts.Max, opts.MaxBytes; ; { // the server limits the messages of one answer
		part, err := c.peek(ctx, queue, opts)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
		for i := range part {
			room -= len(part[i].Body)
		}
		if len(part) < min(opts.Max, maxReceive) || len(all) >= most || room <= 0 {
			return all, nil
		}
		opts.After, opts.Max, opts.MaxBytes = part[len(part)-1].ID.Seq, most-len(all), room
	}
}

// peek requests one part.
func (c *Client) peek(ctx context.Context, queue string, opts surgetank.PeekOptions) ([]surgetank.Delivery, error) {
	q := url.Values{}
	if opts.Max > 0 {
		q.Set("max", itoa(min(opts.Max, maxReceive)))
	}
	if opts.After > 0 {
		q.Set("after", strconv.FormatUint(opts.After, 10))
	}
	if opts.State != "" {
		q.Set("state", string(opts.State))
	}
	if opts.MaxBytes > 0 {
		q.Set("max_bytes", itoa(min(opts.MaxBytes, 64<<20)))
	}
	if opts.ID != (surgetank.MessageID{}) {
		q.Set("id", opts.ID.String())
	}
	var w wireMessages
	if err := c.ask(ctx, request{method: "GET", path: queuePath(queue, "/messages?"+q.Encode()), repeat: true}, &w); err != nil {
		return nil, err
	}
	return w.appendTo(nil)
}
