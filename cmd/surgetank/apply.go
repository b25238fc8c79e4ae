package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/config"
	"github.com/surgetank/surgetank/internal/settings"
)

type applyCmd struct {
	fileFlag
	DryRun bool `help:"Show what would change, and change nothing."`
	remote
	output
}

// change is the action of apply for one policy, queue or sink. Its fields are also the JSON output.
type change struct {
	Kind    string   `json:"kind"`   // policy, queue or sink
	Name    string   `json:"name"`   //
	Action  string   `json:"action"` // create, change or keep
	Details []string `json:"details,omitempty"`
	Done    bool     `json:"done"`
	Error   string   `json:"error,omitempty"`

	do func(context.Context) error
}

// Run makes the policies, queues and sinks of the server match the file. Items that are not in the
// file stay unchanged.
func (c *applyCmd) Run(s *session) error {
	f, err := config.Load(c.File)
	if err != nil {
		var ps config.Problems
		if errors.As(err, &ps) {
			return mistakes(s.stderr, ps)
		}
		return err
	}
	return c.with(func(b surgetank.Broker) error {
		changes, err := c.plan(s, b, f)
		if err != nil {
			return err
		}
		failed := 0
		if !c.DryRun {
			failed = carryOut(s.ctx, changes)
		}
		if err := c.print(s.stdout, changes, func(w io.Writer) error { return showChanges(w, changes, c.DryRun) }); err != nil {
			return err
		}
		if failed > 0 {
			return &failure{exitFailed, fmt.Errorf("%d of %d were not applied", failed, len(changes))}
		}
		return nil
	})
}

// carryOut makes the changes, queues before the sinks that need them. After a failure it still
// makes the changes that do not depend on the failed one.
func carryOut(ctx context.Context, changes []*change) (failed int) {
	for _, ch := range changes {
		if ch.do == nil {
			ch.Done = true
			continue
		}
		if err := ch.do(ctx); err != nil {
			ch.Error = err.Error()
			failed++
			continue
		}
		ch.Done = true
	}
	return failed
}

// plan compares a file with the server's state.
func (c *applyCmd) plan(s *session, b surgetank.Broker, f *config.File) ([]*change, error) {
	ctx := s.ctx
	queues, err := b.Queues(ctx)
	if err != nil {
		return nil, err
	}
	have := map[string]surgetank.QueueInfo{}
	for _, q := range queues {
		have[q.Name] = q
	}
	changes := []*change{}
	for _, p := range f.Policies {
		ch, err := c.planPolicy(s, p)
		if err != nil {
			return nil, err
		}
		changes = append(changes, ch)
	}
	for _, q := range f.Queues {
		now, exists := have[q.Name]
		want := q.Over(now.Declared())
		ch := &change{Kind: "queue", Name: q.Name, Action: "create"}
		if exists {
			if ch.Details = differences(now.Declared(), want); len(ch.Details) == 0 {
				ch.Action = "keep"
				changes = append(changes, ch)
				continue
			}
			ch.Action = "change"
		}
		ch.do = func(ctx context.Context) error {
			_, err := c.ask(ctx, http.MethodPut, "mode=merge", q.Patch(now.Declared()), nil, "queues", q.Name)
			return err
		}
		changes = append(changes, ch)
	}
	for _, k := range f.Sinks {
		ch, err := c.planSink(ctx, k)
		if err != nil {
			return nil, err
		}
		changes = append(changes, ch)
	}
	return changes, nil
}

func (c *applyCmd) planSink(ctx context.Context, k config.Sink) (*change, error) {
	ch := &change{Kind: "sink", Name: k.Name, Action: "create"}
	var info struct {
		Spec json.RawMessage `json:"spec"`
	}
	switch err := c.call(ctx, http.MethodGet, nil, &info, "sinks", k.Name); surgetank.CodeOf(err) {
	case "":
		ch.Action = "change"
		if k.SameAs(info.Spec) {
			ch.Action = "keep"
			return ch, nil
		}
	case surgetank.CodeNotFound:
	default:
		return nil, err
	}
	ch.do = func(ctx context.Context) error {
		return c.call(ctx, http.MethodPut, json.RawMessage(k.JSON()), nil, "sinks", k.Name)
	}
	return ch, nil
}

// differences lists the settings that differ. Defaults are filled in on both sides.
func differences(from, to surgetank.QueueConfig) []string {
	a, b := map[string]any{}, map[string]any{}
	flatten(a, "", settings.Encode(settings.Unqualify(settings.WithDefaults(from))))
	flatten(b, "", settings.Encode(settings.Unqualify(settings.WithDefaults(to))))
	keys := map[string]bool{}
	for k := range a {
		keys[k] = true
	}
	for k := range b {
		keys[k] = true
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if x, y := shown(a[k]), shown(b[k]); x != y {
			out = append(out, fmt.Sprintf("%s: %s → %s", k, x, y))
		}
	}
	return out
}

func shown(v any) string {
	if v == nil {
		return "none"
	}
	return fmt.Sprint(v)
}

func showChanges(w io.Writer, changes []*change, dry bool) error {
	words := map[string]string{"create": "created", "change": "changed", "keep": "unchanged"}
	if dry {
		words = map[string]string{"create": "would create", "change": "would change", "keep": "unchanged"}
	}
	for _, ch := range changes {
		line := fmt.Sprintf("%s %s %s", words[ch.Action], ch.Kind, printable(ch.Name))
		if len(ch.Details) > 0 {
			line += " (" + printable(strings.Join(ch.Details, ", ")) + ")"
		}
		if ch.Error != "" {
			line = fmt.Sprintf("FAILED %s %s: %s", ch.Kind, printable(ch.Name), printable(ch.Error))
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	if len(changes) == 0 {
		_, err := fmt.Fprintln(w, "the file names no policies, queues or sinks")
		return err
	}
	return nil
}
