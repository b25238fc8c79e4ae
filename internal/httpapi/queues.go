package httpapi

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/settings"
)

// maxListed is the default and the largest number of queues on one page.
const maxListed = 10_000

// listQueues shows the queues that the caller may see, ordered by name, in pages.
func (c *call) listQueues() error {
	q, err := c.query()
	if err != nil {
		return err
	}
	most, everywhere := q.number("max"), q.flag("all_vhosts")
	if most == 0 {
		most = maxListed
	}
	all, err := c.broker().Queues(c.r.Context())
	if err != nil && !door.IsPartial(err) {
		return err
	}
	incomplete := ""
	if err != nil {
		incomplete = err.Error()
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
	page := queuesAnswer{Queues: []settings.Queue{}, Incomplete: incomplete}
	for i := range all {
		vhost, name := fullname.Split(all[i].Name)
		if !everywhere && vhost != c.vhost() || key(&all[i]) <= q.text("after") && q.text("after") != "" ||
			!strings.HasPrefix(name, q.text("prefix")) || c.maySee(vhost, name) != nil {
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
// were returned, because a consumer's reason can quote a message.
func (c *call) shape(q *surgetank.QueueInfo) settings.Queue {
	shape := settings.Show(q)
	if shape.Failure != "" && c.maySeeReasons(shape.Vhost, shape.Name) != nil {
		shape.Failure = ""
	}
	return shape
}

// maySeeReasons returns nil for users who may monitor or read the queue.
func (c *call) maySeeReasons(vhost, name string) error {
	if c.api.opts.Auth.AuthorizeMonitor(c.user) == nil {
		return nil
	}
	return c.api.opts.Auth.Authorize(c.user, vhost, auth.Read, name)
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
	q, err := c.query()
	if err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	var info surgetank.QueueInfo
	var created bool
	if q.text("mode") == modeMerge {
		info, created, err = c.mergeQueue(f.m)
	} else {
		var config surgetank.QueueConfig
		if config, err = settings.Decode(f.m); err != nil {
			return err
		}
		info, created, err = c.broker().DeclareQueue(c.r.Context(), c.queue(), settings.Qualify(config, c.vhost()), declareModes[q.text("mode")])
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
	q, err := c.query()
	if err != nil {
		return err
	}
	o := surgetank.DeleteOptions{IfUnused: q.flag("if_unused"), IfEmpty: q.flag("if_empty")}
	removed, err := c.broker().DeleteQueue(c.r.Context(), c.queue(), o)
	if err != nil {
		return err
	}
	return c.respond(http.StatusOK, removedAnswer{removed})
}

// purge drops the messages that are not leased, or only the damaged ones.
func (c *call) purge() error {
	q, err := c.query()
	if err != nil {
		return err
	}
	if err := c.noBody(); err != nil {
		return err
	}
	drop := c.broker().PurgeQueue
	if q.flag("damaged") {
		drop = c.broker().DropDamaged
	}
	purged, err := drop(c.r.Context(), c.queue())
	if err != nil {
		return err
	}
	return c.respond(http.StatusOK, purgedAnswer{purged})
}

// pause stops deliveries, for a time or until resume.
func (c *call) pause() error {
	if _, err := c.query(); err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	d := readPause(f, &c.api.limits)
	if err := f.done(); err != nil {
		return err
	}
	if err := c.broker().PauseQueue(c.r.Context(), c.queue(), d); err != nil {
		return err
	}
	return c.respond(http.StatusOK, pausedAnswer{true})
}

// readPause reads how long a pause lasts; 0: until resume.
func readPause(f *fields, _ *Limits) time.Duration {
	return f.duration("for", time.Nanosecond, surgetank.MaxDuration, 0)
}

func (c *call) resume() error {
	if err := c.plain(); err != nil {
		return err
	}
	if err := c.broker().ResumeQueue(c.r.Context(), c.queue()); err != nil {
		return err
	}
	return c.respond(http.StatusOK, pausedAnswer{false})
}

// setBreaker opens or closes the breaker of a queue's target.
func (c *call) setBreaker() error {
	if _, err := c.query(); err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	op := readBreaker(f, &c.api.limits)
	if err := f.done(); err != nil {
		return err
	}
	set := c.broker().CloseBreaker
	if op.open {
		set = c.broker().OpenBreaker
	}
	if err := set(c.r.Context(), c.queue(), surgetank.BreakerOptions{Reason: op.reason}); err != nil {
		return err
	}
	return c.respond(http.StatusOK, breakerAnswer{op.open})
}

type breakerOp struct {
	open   bool
	reason string
}

func readBreaker(f *fields, _ *Limits) breakerOp {
	f.need("op")
	return breakerOp{f.choice("op", "open", "close") == "open", f.text("reason", 1024)}
}

// levelHistory shows the newest changes of a limit, and the newest outages.
func (c *call) levelHistory() error {
	if err := c.plain(); err != nil {
		return err
	}
	h, err := c.broker().LevelHistory(c.r.Context(), c.queue())
	if err != nil {
		return err
	}
	if c.api.opts.Sinks != nil {
		h.Changes = append(h.Changes, c.api.opts.Sinks.LevelHistory(c.queue())...)
		slices.SortStableFunc(h.Changes, func(a, b surgetank.LevelChange) int { return b.Time.Compare(a.Time) })
	}
	return c.respond(http.StatusOK, settings.ShowLevelHistory(h))
}

// plain rejects parameters and a body in the request.
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
	o := readRedrive(f, &c.api.limits)
	if err := f.done(); err != nil {
		return err
	}
	if o.To, err = c.target("to", o.To); err != nil {
		return err
	}
	if o.Queue, err = c.target("queue", o.Queue); err != nil {
		return err
	}
	res, err := c.broker().Redrive(c.r.Context(), c.queue(), o)
	if err != nil {
		return err
	}
	return c.respond(http.StatusOK, redriveAnswer{res.Matched, res.Moved, res.Skipped, res.Full, o.DryRun})
}

// readRedrive reads the options of a redrive. Names of queues are those of the path's virtual host.
func readRedrive(f *fields, _ *Limits) surgetank.RedriveOptions {
	return surgetank.RedriveOptions{
		To: f.text("to", surgetank.MaxNameLen), Max: f.integer("max", 0, 1<<53, 0), Rate: f.rate("rate"), DryRun: f.flag("dry_run", false),
		Reason: f.text("reason", surgetank.MaxNameLen), Queue: f.text("queue", surgetank.MaxNameLen),
	}
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

// why says why messages wait.
func (c *call) why() error {
	q, err := c.query()
	if err != nil {
		return err
	}
	if err := c.maySeeReasons(c.vhost(), c.params["q"]); err != nil {
		return err
	}
	o := surgetank.ExplainOptions{Group: q.text("group")}
	if id := q.text("id"); id != "" {
		if o.ID, err = surgetank.ParseMessageID(id); err != nil {
			return surgetank.FieldErrorf("id", "%s", err)
		}
	}
	e, err := c.broker().Explain(c.r.Context(), c.queue(), o)
	if err != nil {
		return err
	}
	return c.respond(http.StatusOK, settings.ShowWhy(&e))
}

// peek shows messages without leasing them.
func (c *call) peek() error {
	q, err := c.query()
	if err != nil {
		return err
	}
	o := surgetank.PeekOptions{
		Max: clampInt(int64(q.number("max"))), After: q.number("after"), MaxBytes: clampInt(int64(q.number("max_bytes"))),
		State: surgetank.State(q.text("state")),
	}
	if id := q.text("id"); id != "" {
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
