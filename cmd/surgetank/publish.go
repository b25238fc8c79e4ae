package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/cmd/surgetank/internal/feed"
	"github.com/surgetank/surgetank/internal/input"
	"github.com/surgetank/surgetank/internal/jsonpath"
	"github.com/surgetank/surgetank/internal/settings"
)

// createdWindow is the dedup window of queues that publish or the demo create. It is longer than a
// usual downtime of a server.
const createdWindow = time.Hour

type publishCmd struct {
	Queue string   `arg:"" help:"The queue's name."`
	Files []string `arg:"" optional:"" placeholder:"FILE" help:"Files to read; - or none is standard input. Every line that is not empty is one message, unless --format says otherwise."`

	Format    string `enum:"lines,csv,ndjson,json" default:"lines" help:"How files are read: lines, each a body as it stands; ndjson, each line a JSON value; json, values one after the other or the elements of an array; csv, each row a JSON object with the header's names. Default ${default}."`
	Delimiter string `placeholder:"CHAR" help:"With --format csv: what separates fields, a character or the word tab. Default a comma."`

	Group  string   `placeholder:"PATH" help:"Group of each line, as a JSON path into it: $$.customer.id. Default: what the queue's group_by says."`
	Create bool     `help:"Create the queue if it is not there, with a dedup window of one hour and, with --group, in order inside each group."`
	Set    []string `sep:"none" placeholder:"KEY=VALUE" help:"With --create: further settings, as in queue set."`
	Run_   string   `name:"run" placeholder:"NAME" help:"Name of this input. Publishing it again under the same name, within the dedup window, stores only the lines that were not stored before. Default: a random name."`

	Rate       string        `placeholder:"RATE" help:"Lines per time, such as 500/s. Default as fast as they are confirmed."`
	InFlight   int           `default:"${lanes}" help:"Batches in flight, for queues with groups; one where the whole queue keeps its order. Default ${default}."`
	BatchLines int           `default:"${batch_lines}" help:"Lines in a batch at most. Default ${default}."`
	BatchBytes string        `default:"1MiB" help:"Bytes in a batch at most; a longer line goes alone. Default ${default}."`
	GiveUp     time.Duration `default:"5m" help:"Stop when nothing was confirmed for this long. Default ${default}."`

	AllowDuplicates bool `help:"Send a batch again although some of it may be stored, where the server can no longer tell."`
	vhostFlag
	remote
	output
}

// publishShape is the JSON output of publish.
type publishShape struct {
	Queue string `json:"queue"`
	Run   string `json:"run"`
	feed.Report
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"`
}

func (c *publishCmd) Run(s *session) error {
	return c.with(func(b surgetank.Broker) error {
		format := input.Options{Format: input.Format(c.Format), Max: surgetank.CeilingMaxMessage}
		var err error
		if format.Comma, err = input.ParseDelimiter(c.Delimiter); err == nil {
			err = format.Check()
		}
		if err != nil {
			return &failure{exitUsage, err}
		}
		o, err := c.options(s.ctx, b)
		if err != nil {
			return err
		}
		if format.Format != input.Lines {
			o.Format, o.ContentType = c.Format+":", "application/json"
		}
		src, total := feed.NewFiles(c.Files, s.stdin, format), inputSize(c.Files)
		var stats feed.Stats
		start := time.Now()
		p := startProgress(s.stderr, func() string { return publishLine(stats.Snapshot(), total, time.Since(start)) })
		o.Note = func(text string) { p.note("surgetank: " + text) }
		err = feed.Publish(s.ctx, b, src, o, &stats)
		p.finish()

		r, took := stats.Snapshot(), time.Since(start)
		shape := publishShape{Queue: c.Queue, Run: o.Run, Report: r, Seconds: took.Seconds()}
		if err != nil {
			shape.Error = err.Error()
		}
		if perr := c.print(s.stdout, shape, func(w io.Writer) error {
			repeated := ""
			if r.Duplicates > 0 {
				repeated = fmt.Sprintf(" (%s of them by an earlier run)", count(r.Duplicates))
			}
			_, err := fmt.Fprintf(w, "confirmed %s%s, %s, in %s: %s lines/s into %s\n",
				plural(r.Confirmed, "line"), repeated, size(r.Bytes), age(took), count(int64(float64(r.Confirmed)/max(took.Seconds(), 1e-3))), printable(c.Queue))
			return err
		}); perr != nil {
			return perr
		}
		if err == nil {
			return nil
		}
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
		again := ""
		if o.Window > 0 {
			again = fmt.Sprintf("\nsurgetank: to go on where it stopped, publish the same input with --run %s within the dedup window (%v)", o.Run, o.Window)
		}
		return fmt.Errorf("not all lines are confirmed: %w%s", err, again)
	})
}

// options reads the queue's settings from the server, or creates the queue.
func (c *publishCmd) options(ctx context.Context, b surgetank.Broker) (feed.Options, error) {
	o := feed.Options{Queue: "", Run: c.Run_, Repeat: c.AllowDuplicates, Lanes: c.InFlight, BatchLines: c.BatchLines, GiveUp: c.GiveUp}
	name, err := c.full(c.Queue)
	if err != nil {
		return o, err
	}
	o.Queue = name
	if o.Run == "" {
		o.Run = strings.ToLower(rand.Text()[:13])
	}
	if len(o.Run) > surgetank.MaxDedupIDLen-32 {
		return o, surgetank.FieldErrorf("run", "the run's name has %d bytes; at most %d are allowed", len(o.Run), surgetank.MaxDedupIDLen-32)
	}
	n, err := settings.ParseSize(c.BatchBytes)
	if err != nil {
		return o, surgetank.FieldErrorf("batch-bytes", "--batch-bytes: %s", err)
	}
	o.BatchBytes = int(min(n, surgetank.CeilingMaxMessage))
	rate, err := parseRate(c.Rate)
	if err != nil {
		return o, err
	}
	o.Rate = float64(rate)

	q, err := c.queue(ctx, b, name)
	if err != nil {
		return o, err
	}
	o.Window = q.Config.DedupWindow
	expr := c.Group
	if expr == "" && strings.HasPrefix(q.Config.GroupBy, "$.") {
		expr = q.Config.GroupBy
	}
	if expr != "" {
		path, err := jsonpath.Parse(expr)
		if err != nil {
			return o, surgetank.FieldErrorf("group", "--group: %s", err)
		}
		o.SetGroup = c.Group != ""
		o.Group = func(body []byte) string {
			g, _ := path.String(body)
			return g
		}
	}
	return o, nil
}

func (c *publishCmd) queue(ctx context.Context, b surgetank.Broker, name string) (surgetank.QueueInfo, error) {
	if !c.Create {
		if len(c.Set) > 0 {
			return surgetank.QueueInfo{}, &failure{exitUsage, errors.New("--set needs --create; use surgetank queue set to change a queue that is there")}
		}
		q, err := b.Queue(ctx, name)
		if surgetank.CodeOf(err) == surgetank.CodeNotFound {
			err = surgetank.Errorf(surgetank.CodeNotFound, "there is no queue %s; create it with surgetank queue set %s, or publish with --create", c.Queue, c.Queue)
		}
		return q, err
	}
	tree := map[string]any{"dedup": map[string]any{"window": settings.FormatDuration(createdWindow)}}
	if c.Group != "" {
		tree["group_by"] = c.Group
		tree["group"] = map[string]any{"max_in_flight": 1}
	}
	for _, kv := range c.Set {
		if err := setKey(tree, kv); err != nil {
			return surgetank.QueueInfo{}, err
		}
	}
	prune(tree)
	config, err := settings.Decode(tree)
	if err != nil {
		return surgetank.QueueInfo{}, err
	}
	q, _, err := b.DeclareQueue(ctx, name, settings.Qualify(config, c.Vhost), surgetank.DeclareIfAbsent)
	return q, err
}

func parseRate(s string) (surgetank.Rate, error) {
	if s == "" {
		return 0, nil
	}
	r, err := settings.ParseRate(s)
	if err != nil {
		return 0, surgetank.FieldErrorf("rate", "--rate: %s", err)
	}
	return r, nil
}

// inputSize returns the total size of all files in bytes, or 0 if it is unknown.
func inputSize(names []string) (total int64) {
	for _, name := range names {
		info, err := os.Stat(name)
		if name == "-" || err != nil || !info.Mode().IsRegular() {
			return 0
		}
		total += info.Size()
	}
	return total
}

func publishLine(r feed.Report, total int64, took time.Duration) string {
	rate := float64(r.Confirmed) / max(took.Seconds(), 1e-3)
	line := fmt.Sprintf("%s confirmed, %s, %s/s", plural(r.Confirmed, "line"), size(r.Bytes), count(int64(rate)))
	if total > 0 {
		share := min(float64(r.Bytes+r.Confirmed)/float64(total), 1) // one line end per confirmed line
		line = fmt.Sprintf("%s %3.0f%% %s", bar(share, 24), share*100, line)
	}
	if r.Retries > 0 {
		line += fmt.Sprintf(", %s batches sent again", count(r.Retries))
	}
	return line
}
