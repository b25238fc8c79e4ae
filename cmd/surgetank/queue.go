package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/settings"
)

// queueCmds are the commands for queues.
type queueCmds struct {
	Ls      queueLsCmd      `cmd:"" help:"List queues with their figures."`
	Show    queueShowCmd    `cmd:"" help:"Show one queue: settings, figures, and why its next message waits."`
	Set     queueSetCmd     `cmd:"" help:"Create a queue, or change some of its settings."`
	Rm      queueRmCmd      `cmd:"" help:"Delete a queue and its messages."`
	Purge   queuePurgeCmd   `cmd:"" help:"Drop every message that is not leased, or only what is damaged."`
	Breaker queueBreakerCmd `cmd:"" help:"Open or close the breaker of a queue's target."`
	Level   queueLevelCmd   `cmd:"" help:"Show the history of a queue's adaptive limit and breaker."`
	Pause   queuePauseCmd   `cmd:"" help:"Stop delivering; publishing goes on."`
	Resume  queueResumeCmd  `cmd:"" help:"Hand out again."`
	Why     queueWhyCmd     `cmd:"" help:"Say why messages wait, who holds what blocks them, and when the backlog will be done."`
	Peek    queuePeekCmd    `cmd:"" help:"Show messages without leasing them."`
	Redrive queueRedriveCmd `cmd:"" help:"Move dead-lettered messages back to where they died, or elsewhere."`
}

// vhostFlag names the virtual host of a queue.
type vhostFlag struct {
	Vhost string `placeholder:"NAME" default:"/" help:"Virtual host. Default ${default}."`
}

func (v vhostFlag) full(queue string) (string, error) {
	name := fullname.Of(v.Vhost, queue)
	return name, fullname.Validate(name)
}

type queueLsCmd struct {
	remote
	output
}

func (c *queueLsCmd) Run(s *session) error {
	return c.with(func(b surgetank.Broker) error {
		queues, partial := b.Queues(s.ctx)
		if partial != nil && !door.IsPartial(partial) {
			return partial
		}
		c.noteRefusal(s.ctx, s.stderr)
		slices.SortFunc(queues, func(a, b surgetank.QueueInfo) int { return strings.Compare(a.Name, b.Name) })
		shapes := make([]settings.Queue, len(queues))
		for i, q := range queues {
			shapes[i] = settings.Show(&q)
		}
		return cmp.Or(c.print(s.stdout, shapes, func(w io.Writer) error {
			return table(w, "QUEUE READY BLOCKED DELAYED LEASED IN OUT BYTES OLDEST CONSUMERS STATE", func(row func(...any)) {
				for i, q := range queues {
					state := "running"
					if q.Config.Paused {
						state = "paused"
					}
					if q.Damaged > 0 {
						state += fmt.Sprintf(", %s DAMAGED", count(q.Damaged))
					}
					name := shapes[i].Name
					if shapes[i].Vhost != fullname.DefaultVhost {
						name = shapes[i].Vhost + ":" + name
					}
					row(printable(name), count(q.Ready), count(q.Blocked), count(q.Delayed), count(q.Leased), rate(q.In.Minute), rate(q.Out.Minute), size(q.Bytes), age(q.OldestAge), q.Consumers, state)
				}
			})
		}), partial)
	})
}

// queueArg is the argument and the flags of a command for one queue.
type queueArg struct {
	Queue string `arg:"" help:"The queue's name."`
	vhostFlag
	remote
	output
}

// question returns the question that a user must confirm before a command changes a queue. The
// question names the number of messages.
func (c *queueArg) question(s *session, b surgetank.Broker, name, what string) (string, error) {
	q, err := b.Queue(s.ctx, name)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s queue %s with %s?", what, printable(c.Queue), plural(q.Ready+q.Blocked+q.Delayed+q.Leased+q.Damaged, "message")), nil
}

type queueShowCmd struct{ queueArg }

func (c *queueShowCmd) Run(s *session) error {
	if _, err := c.full(c.Queue); err != nil {
		return err
	}
	var shape settings.Queue
	if err := c.call(s.ctx, http.MethodGet, nil, &shape, "vhosts", c.Vhost, "queues", c.Queue); err != nil {
		return err
	}
	q, err := shape.Info()
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(s.stdout, shape)
	}
	var why settings.Why
	switch err := c.call(s.ctx, http.MethodGet, nil, &why, "vhosts", c.Vhost, "queues", c.Queue, "why"); surgetank.CodeOf(err) {
	case "":
	case surgetank.CodeDenied, surgetank.CodeNotFound: // the user has no right to read the queue, or the server's version is too old
		why = settings.Why{}
	default:
		return err
	}
	return showQueue(s.stdout, q, shape.Sinks, &why)
}

func showQueue(w io.Writer, q surgetank.QueueInfo, sinks []settings.QueueSink, why *settings.Why) error {
	shape := settings.Show(&q)
	fmt.Fprintf(w, "queue %s (vhost %s), made %s\n", printable(shape.Name), printable(shape.Vhost), q.Created.Format(time.RFC3339))
	if q.Waiting != "" {
		fmt.Fprintf(w, "waiting: %s\n", printable(q.Waiting))
	}
	if q.Config.Paused {
		end := "someone resumes it"
		if !q.Config.PausedUntil.IsZero() {
			end = q.Config.PausedUntil.Format(time.RFC3339)
		}
		fmt.Fprintf(w, "paused: until %s; paused by %s", end, printable(cmp.Or(q.PausedBy, "no user")))
		if !q.PausedAt.IsZero() {
			fmt.Fprintf(w, " at %s", q.PausedAt.Format(time.RFC3339))
		}
		fmt.Fprintln(w)
	}
	if q.BackingOff > 0 {
		fmt.Fprintf(w, "backing off: %s, the next try is in %s; its last one failed: %s (queue peek --state delayed has the others)\n", plural(q.BackingOff, "message"),
			age(time.Until(q.NextTry)), printable(cmp.Or(q.Failure, "nobody said why")))
	}
	showLevel(w, q.Level)
	for _, k := range sinks {
		fmt.Fprintf(w, "sink %s: %s", printable(k.Name), printable(k.State))
		if k.Reason != "" {
			fmt.Fprintf(w, ": %s", printable(k.Reason))
		}
		fmt.Fprintln(w)
		if l := k.Level; l != nil {
			fmt.Fprintf(w, "  level: limit %s, in force %d, batches of %s", plural(int64(l.Limit), "lane"), l.InForce, plural(int64(l.Batch), "row"))
			if l.Ratio > 0 {
				fmt.Fprintf(w, ", ratio %.2f", l.Ratio)
			}
			fmt.Fprintf(w, "; last change: %s, %s ago. %s\n", l.Reason, age(time.Since(l.Changed)), l.State)
		}
	}
	if q.Damaged > 0 {
		fmt.Fprintf(w, "DAMAGED: %s cannot be read; list them with queue peek --state damaged, drop them with queue purge --damaged\n", plural(q.Damaged, "message"))
	}
	fmt.Fprintf(w, "\nready %s  blocked %s  delayed %s  leased %s  damaged %s  (%s, oldest %s, %s groups, %d consumers)\n",
		count(q.Ready), count(q.Blocked), count(q.Delayed), count(q.Leased), count(q.Damaged), size(q.Bytes), age(q.OldestAge), count(q.Groups), q.Consumers)
	fmt.Fprintf(w, "in %s  out %s in the last minute; in %s  out %s in the last 10 minutes\n", rate(q.In.Minute), rate(q.Out.Minute), rate(q.In.TenMinutes), rate(q.Out.TenMinutes))
	if why.Drain != nil {
		fmt.Fprintf(w, "time to drain: %s\n", printable(why.Drain.Text))
	}
	if err := leadingGroups(w, why.Groups, 5); err != nil {
		return err
	}
	fmt.Fprintf(w, "since the server started: published %s  duplicates %s  refused %s  delivered %s  acked %s  nacked %s  dead-lettered %s  expired %s  dropped %s  leases lost %s\n\n",
		count(q.Published), count(q.Duplicates), count(q.Refused), count(q.Delivered), count(q.Acked), count(q.Nacked), count(q.DeadLettered), count(q.Expired), count(q.Dropped), count(q.LeasesLost))
	for _, r := range q.Refusals {
		fmt.Fprintf(w, "refused by %s: %s, the last one %s ago\n", r.Limit, count(r.Count), age(time.Since(r.Last)))
	}
	if q.Coalesced > 0 {
		fmt.Fprintf(w, "coalesced: %s not delivered, because another message with the same key is delivered instead\n\n", plural(int64(q.Coalesced), "message"))
	}
	if q.Circled > 0 {
		fmt.Fprintf(w, "CIRCLE: %s dropped because queues would have passed them to each other for ever; look at ttl, overflow and dead_letter of this queue and the next\n\n", plural(int64(q.Circled), "message"))
	}
	if q.Policy != "" {
		fmt.Fprintf(w, "policy %s applies to it: %s\n\n", printable(q.Policy), printable(strings.Join(differences(q.Declared(), q.Config), ", ")))
	}
	return table(w, "SETTING VALUE", func(row func(...any)) {
		flat := map[string]any{}
		flatten(flat, "", shape.Settings)
		for _, k := range slices.Sorted(maps.Keys(flat)) {
			row(k, printable(fmt.Sprint(flat[k])))
		}
	})
}

// flatten writes nested settings as dotted keys.
func flatten(into map[string]any, prefix string, tree map[string]any) {
	for k, v := range tree {
		if inner, ok := v.(map[string]any); ok {
			flatten(into, prefix+k+".", inner)
			continue
		}
		into[prefix+k] = v
	}
}

type queueSetCmd struct {
	Queue    string   `arg:"" help:"The queue's name."`
	Settings []string `arg:"" optional:"" placeholder:"KEY=VALUE" help:"Settings with the keys of the configuration file, nested ones with dots: level.rate=2000/s group.weights.acme=3. KEY= puts a setting back to its default."`
	Replace  bool     `help:"Put every setting that is not given back to its default."`
	vhostFlag
	remote
	output
}

// Help is the text that --help prints besides the flags.
func (c *queueSetCmd) Help() string { return "Settings:\n\n" + settings.Usage() }

func (c *queueSetCmd) Run(s *session) error {
	if _, err := c.full(c.Queue); err != nil {
		return err
	}
	tree := map[string]any{}
	for _, kv := range c.Settings {
		if err := setKey(tree, kv); err != nil {
			return err
		}
	}
	mode := "merge"
	if c.Replace {
		mode = "create_or_update"
		prune(tree)
	}
	var shape settings.Queue
	status, err := c.ask(s.ctx, http.MethodPut, "mode="+mode, tree, &shape, "vhosts", c.Vhost, "queues", c.Queue)
	if err != nil {
		return err
	}
	return c.print(s.stdout, shape, func(w io.Writer) error {
		did := "changed"
		if status == http.StatusCreated {
			did = "created"
		}
		_, err := fmt.Fprintf(w, "%s queue %s\n", did, printable(c.Queue))
		return err
	})
}

// prune removes null from a tree of settings: the key is removed, so the default applies.
func prune(tree map[string]any) {
	for k, v := range tree {
		if inner, ok := v.(map[string]any); ok {
			prune(inner)
		} else if v == nil {
			delete(tree, k)
		}
	}
}

// setKey stores KEY=VALUE in a settings tree. KEY= stores null, which means the default. Numbers
// and booleans are recognised by their form; the settings codec rejects values that do not fit the
// key.
func setKey(tree map[string]any, kv string) error {
	key, text, ok := strings.Cut(kv, "=")
	if !ok || key == "" {
		return &failure{exitUsage, fmt.Errorf("%.60q is not KEY=VALUE, such as level.rate=2000/s", kv)}
	}
	section, inner, nested := strings.Cut(key, ".")
	if nested {
		sub, _ := tree[section].(map[string]any)
		if sub == nil {
			sub = map[string]any{}
			tree[section] = sub
		}
		tree, key = sub, inner
	}
	if path, name := settings.CutName(section + "." + inner); nested && name != "" {
		_, key, _ = strings.Cut(path, ".")
		names, _ := tree[key].(map[string]any)
		if names == nil {
			names = map[string]any{}
			tree[key] = names
		}
		tree, key = names, name
		if rule, member, below := cutLast(name); below && path == "retry.by_reason" && settings.IsRuleKey(member) {
			members, _ := names[rule].(map[string]any)
			if members == nil {
				members = map[string]any{}
				names[rule] = members
			}
			tree, key = members, member
		}
	}
	if text == "" {
		tree[key] = nil
		return nil
	}
	tree[key] = looksLike(text)
	return nil
}

// cutLast splits a text at its last dot.
func cutLast(text string) (before, after string, found bool) {
	i := strings.LastIndexByte(text, '.')
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+1:], true
}

type queueRmCmd struct {
	queueArg
	yesFlag
	IfEmpty  bool `help:"Only if it holds no messages."`
	IfUnused bool `help:"Only if it has no consumers."`
}

// countShape is the JSON output of commands that remove messages.
type countShape struct {
	Queue    string `json:"queue"`
	Messages int64  `json:"messages"`
}

func (c *queueRmCmd) Run(s *session) error {
	return c.with(func(b surgetank.Broker) error {
		name, err := c.full(c.Queue)
		if err != nil {
			return err
		}
		if err := c.confirm(s, func() (string, error) { return c.question(s, b, name, "Delete") }); err != nil {
			return err
		}
		n, err := b.DeleteQueue(s.ctx, name, surgetank.DeleteOptions{IfEmpty: c.IfEmpty, IfUnused: c.IfUnused})
		if err != nil {
			return err
		}
		return c.print(s.stdout, countShape{c.Queue, n}, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "deleted queue %s with %s\n", printable(c.Queue), plural(n, "message"))
			return err
		})
	})
}

type queuePurgeCmd struct {
	queueArg
	yesFlag
	Damaged bool `help:"Only messages that cannot be read. Their groups continue."`
}

func (c *queuePurgeCmd) Run(s *session) error {
	return c.with(func(b surgetank.Broker) error {
		name, err := c.full(c.Queue)
		if err != nil {
			return err
		}
		what := "Drop all that is not leased from"
		if c.Damaged {
			what = "Drop the damaged messages from"
		}
		if err := c.confirm(s, func() (string, error) { return c.question(s, b, name, what) }); err != nil {
			return err
		}
		purge := b.PurgeQueue
		if c.Damaged {
			purge = b.DropDamaged
		}
		n, err := purge(s.ctx, name)
		if err != nil {
			return err
		}
		return c.print(s.stdout, countShape{c.Queue, n}, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "purged %s from %s\n", plural(n, "message"), printable(c.Queue))
			return err
		})
	})
}

// pausedShape is the JSON output of pause and resume.
type pausedShape struct {
	Queue  string `json:"queue"`
	Paused bool   `json:"paused"`
}

type queuePauseCmd struct {
	queueArg
	For time.Duration `placeholder:"DURATION" help:"Resume by itself after this time, such as 10m. Default: pause until queue resume."`
}

func (c *queuePauseCmd) Run(s *session) error {
	word := "paused"
	if c.For > 0 {
		word += " for " + settings.FormatDuration(c.For)
	}
	return c.pause(s, true, word, func(b surgetank.Broker, name string) error { return b.PauseQueue(s.ctx, name, c.For) })
}

type queueResumeCmd struct{ queueArg }

func (c *queueResumeCmd) Run(s *session) error {
	return c.pause(s, false, "resumed", func(b surgetank.Broker, name string) error { return b.ResumeQueue(s.ctx, name) })
}

// pause calls f for the queue and reports the result.
func (c *queueArg) pause(s *session, paused bool, word string, f func(b surgetank.Broker, name string) error) error {
	return c.with(func(b surgetank.Broker) error {
		name, err := c.full(c.Queue)
		if err != nil {
			return err
		}
		if err := f(b, name); err != nil {
			return err
		}
		return c.print(s.stdout, pausedShape{c.Queue, paused}, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "queue %s is %s\n", printable(c.Queue), word)
			return err
		})
	})
}
