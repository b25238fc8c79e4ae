package httpapi

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/settings"
)

// maxListed is the default and the largest number of queues on one page.
const maxListed = 10_000

// listQueues shows the queues that the caller may see, ordered by name, in pages.
func (c *call) listQueues() error {
	q, err := c.query("after", "max", "prefix", "all_vhosts")
	if err != nil {
		return err
	}
	most, err := queryUint(q, "max", maxListed)
	if err != nil {
		return err
	}
	if most == 0 {
		most = maxListed
	}
	everywhere, err := queryBool(q, "all_vhosts")
	if err != nil {
		return err
	}
	all, err := c.broker().Queues(c.r.Context())
	if err != nil {
		return err
	}
	// Pages are ordered by "vhost NUL name". after is such a key, as returned in next.
	key := func(i *surgetank.QueueInfo) string {
		vhost, name := fullname.Split(i.Name)
		if everywhere {
			return vhost + "\n" + name
		}
		return name
	}
	slices.SortFunc(all, func(a, b surgetank.QueueInfo) int { return strings.Compare(key(&a), key(&b)) })
	page := struct {
		Queues []settings.Queue `json:"queues"`
		Next   string           `json:"next,omitempty"`
	}{Queues: []settings.Queue{}}
	for i := range all {
		vhost, name := fullname.Split(all[i].Name)
		if !everywhere && vhost != c.vhost() || key(&all[i]) <= q.Get("after") && q.Get("after") != "" ||
			!strings.HasPrefix(name, q.Get("prefix")) || c.maySee(vhost, name) != nil {
			continue
		}
		if uint64(len(page.Queues)) == most {
			page.Next = key(&all[i-1])
			break
		}
		page.Queues = append(page.Queues, c.show(&all[i]))
	}
	return c.respond(http.StatusOK, page)
}

func (c *call) getQueue() error {
	if _, err := c.query(); err != nil {
		return err
	}
	info, err := c.broker().Queue(c.r.Context(), c.queue())
	if err != nil {
		return err
	}
	return c.respond(http.StatusOK, c.show(&info))
}

// show returns a queue's JSON form with the sinks that read the queue. Only users who may monitor
// see a sink's reason, because it can name the target and quote messages.
func (c *call) show(q *surgetank.QueueInfo) settings.Queue {
	shape := c.shape(q)
	if c.api.opts.Sinks == nil {
		return shape
	}
	shape.Sinks = c.api.opts.Sinks.OnQueue(q.Name)
	if len(shape.Sinks) > 0 && c.api.opts.Auth.AuthorizeMonitor(c.user) != nil {
		for i := range shape.Sinks {
			shape.Sinks[i].Reason = ""
		}
	}
	return shape
}

// shape returns a queue's JSON form. Only users who may monitor or read the queue see why messages
// came back, because a consumer's reason can quote a message.
func (c *call) shape(q *surgetank.QueueInfo) settings.Queue {
	shape := settings.Show(q)
	if shape.Failure != "" && c.api.opts.Auth.AuthorizeMonitor(c.user) != nil && c.api.opts.Auth.Authorize(c.user, shape.Vhost, auth.Read, shape.Name) != nil {
		shape.Failure = ""
	}
	return shape
}

var declareModes = map[string]surgetank.DeclareMode{
	"": surgetank.DeclareOrUpdate, "create_or_update": surgetank.DeclareOrUpdate, "create_if_absent": surgetank.DeclareIfAbsent,
	"create": surgetank.DeclareNew, "update": surgetank.DeclareUpdate,
}

// modeMerge changes the given settings and keeps all others. null resets a setting to its default.
const modeMerge = "merge"

// putQueue creates a queue or replaces its settings. A missing setting becomes the default; with
// mode=merge it stays unchanged.
func (c *call) putQueue() error {
	q, err := c.query("mode")
	if err != nil {
		return err
	}
	mode, ok := declareModes[q.Get("mode")]
	if !ok && q.Get("mode") != modeMerge {
		return surgetank.FieldErrorf("mode", "mode is create_or_update, create_if_absent, create, update or merge, not %.40q", q.Get("mode"))
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	var info surgetank.QueueInfo
	var created bool
	if q.Get("mode") == modeMerge {
		info, created, err = c.mergeQueue(f.m)
	} else {
		var config surgetank.QueueConfig
		if config, err = settings.Decode(f.m); err != nil {
			return err
		}
		info, created, err = c.broker().DeclareQueue(c.r.Context(), c.queue(), settings.Qualify(config, c.vhost()), mode)
	}
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return c.respond(status, c.shape(&info))
}

// mergeQueue changes some settings of a queue. No other change can come in between.
func (c *call) mergeQueue(given map[string]any) (surgetank.QueueInfo, bool, error) {
	p := c.api.opts.Policies
	if p == nil {
		return surgetank.QueueInfo{}, false, surgetank.Errorf(surgetank.CodeInvalid, "this server cannot merge settings; send all of them")
	}
	return p.For(c.user).Change(c.r.Context(), c.queue(), func(now *surgetank.QueueInfo) (surgetank.QueueConfig, error) {
		tree := map[string]any{}
		if now != nil {
			tree = settings.Encode(settings.Unqualify(now.Declared()))
		}
		merge(tree, given)
		config, err := settings.Decode(tree)
		return settings.Qualify(config, c.vhost()), err
	})
}

// merge applies a merge patch (RFC 7396) to a tree of settings.
func merge(tree, given map[string]any) {
	for key, v := range given {
		inner, nested := v.(map[string]any)
		switch {
		case v == nil:
			delete(tree, key)
		case nested:
			sub, _ := tree[key].(map[string]any)
			if sub == nil {
				sub = map[string]any{}
				tree[key] = sub
			}
			merge(sub, inner)
		default:
			tree[key] = v
		}
	}
}

func (c *call) deleteQueue() error {
	q, err := c.query("if_unused", "if_empty")
	if err != nil {
		return err
	}
	var o surgetank.DeleteOptions
	if o.IfUnused, err = queryBool(q, "if_unused"); err != nil {
		return err
	}
	if o.IfEmpty, err = queryBool(q, "if_empty"); err != nil {
		return err
	}
	removed, err := c.broker().DeleteQueue(c.r.Context(), c.queue(), o)
	if err != nil {
		return err
	}
	return c.respond(http.StatusOK, map[string]int64{"removed": removed})
}

// purge drops the messages that are not leased, or only the damaged ones.
func (c *call) purge() error {
	q, err := c.query("damaged")
	if err != nil {
		return err
	}
	damaged, err := queryBool(q, "damaged")
	if err != nil {
		return err
	}
	if err := c.noBody(); err != nil {
		return err
	}
	drop := c.broker().PurgeQueue
	if damaged {
		drop = c.broker().DropDamaged
	}
	purged, err := drop(c.r.Context(), c.queue())
	if err != nil {
		return err
	}
	return c.respond(http.StatusOK, map[string]int64{"purged": purged})
}

func (c *call) pause() error  { return c.setPaused(true) }
func (c *call) resume() error { return c.setPaused(false) }

func (c *call) setPaused(paused bool) error {
	if err := c.plain(); err != nil {
		return err
	}
	if err := c.broker().PauseQueue(c.r.Context(), c.queue(), paused); err != nil {
		return err
	}
	return c.respond(http.StatusOK, map[string]bool{"paused": paused})
}

// plain rejects parameters and a body.
func (c *call) plain() error {
	if _, err := c.query(); err != nil {
		return err
	}
	return c.noBody()
}

// redrive moves messages to another queue and answers when all are moved. If the client leaves, the
// move stops.
func (c *call) redrive() error {
	if _, err := c.query(); err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	to, filter := f.text("to", surgetank.MaxNameLen), f.text("queue", surgetank.MaxNameLen)
	o := surgetank.RedriveOptions{
		Max: f.integer("max", 0, 1<<53, 0), Rate: f.rate("rate"), DryRun: f.flag("dry_run", false),
		Reason: f.text("reason", surgetank.MaxNameLen),
	}
	if err := f.done(); err != nil {
		return err
	}
	if o.To, err = c.target("to", to); err != nil {
		return err
	}
	if o.Queue, err = c.target("queue", filter); err != nil {
		return err
	}
	res, err := c.broker().Redrive(c.r.Context(), c.queue(), o)
	if err != nil {
		return err
	}
	answer := map[string]any{"matched": res.Matched, "moved": res.Moved, "skipped": res.Skipped, "dry_run": o.DryRun}
	if res.Full > 0 {
		answer["full"] = res.Full
	}
	return c.respond(http.StatusOK, answer)
}

// target returns the full name of a queue of the path's virtual host; "" stays "".
func (c *call) target(field, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	if err := surgetank.ValidateName("queue", name); err != nil {
		return "", surgetank.FieldErrorf(field, "%s", err)
	}
	return fullname.Of(c.vhost(), name), nil
}

// peek shows messages without leasing them.
func (c *call) peek() error {
	q, err := c.query("max", "after", "state", "max_bytes", "id")
	if err != nil {
		return err
	}
	var o surgetank.PeekOptions
	most, err := queryUint(q, "max", uint64(c.api.limits.MaxReceive))
	if err != nil {
		return err
	}
	o.Max = clampInt(int64(most))
	if o.After, err = queryUint(q, "after", 1<<63-1); err != nil {
		return err
	}
	most, err = queryUint(q, "max_bytes", 64<<20)
	if err != nil {
		return err
	}
	o.MaxBytes = clampInt(int64(most))
	switch o.State = surgetank.State(q.Get("state")); o.State {
	case "", surgetank.StateReady, surgetank.StateBlocked, surgetank.StateDelayed, surgetank.StateLeased, surgetank.StateDamaged:
	default:
		return surgetank.FieldErrorf("state", "state is ready, blocked, delayed, leased or damaged, not %.40q", q.Get("state"))
	}
	if id := q.Get("id"); id != "" {
		if o.ID, err = surgetank.ParseMessageID(id); err != nil {
			return surgetank.FieldErrorf("id", "%s", err)
		}
	}
	if err := c.answersFree(); err != nil {
		return err
	}
	list, err := c.broker().Peek(c.r.Context(), c.queue(), o)
	if err != nil {
		return err
	}
	return unsent(c.respondMessages(list, false, closeObject))
}

// seconds converts a duration for Prometheus.
func seconds(d time.Duration) float64 { return d.Seconds() }
