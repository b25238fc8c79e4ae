package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/surgetank/surgetank"
)

// sinkCmds are the commands on sinks: consumers inside the server that write to a database.
type sinkCmds struct {
	Ls     sinkLsCmd     `cmd:"" help:"List sinks with their state."`
	Show   sinkShowCmd   `cmd:"" help:"Show one sink: settings, without secrets, state and figures."`
	Set    sinkSetCmd    `cmd:"" help:"Create a sink, or replace its settings. The target is checked first."`
	Rm     sinkRmCmd     `cmd:"" help:"Remove a sink. Its queue and what it wrote stay."`
	Pause  sinkPauseCmd  `cmd:"" help:"Stop writing after the batches at hand."`
	Resume sinkResumeCmd `cmd:"" help:"Write again."`
}

type sinkArg struct {
	Sink string `arg:"" help:"The sink's name."`
	remote
	output
}

// sinkInfo is what people are shown of a sink; --json prints all that the server gives.
type sinkInfo struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Paused bool   `json:"paused"`
	Reason string `json:"reason"`
	Queue  string `json:"queue"`

	HeldBack   int64  `json:"held_back"`
	HeldReason string `json:"held_back_reason"`
}

// why is the reason of the state, or why messages are held back while others go on.
func (i *sinkInfo) why() string {
	if i.Reason == "" && i.HeldBack > 0 {
		return fmt.Sprintf("%s held back: %s", plural(i.HeldBack, "message"), i.HeldReason)
	}
	return i.Reason
}

type sinkLsCmd struct {
	remote
	output
}

func (c *sinkLsCmd) Run(s *session) error {
	var answer struct {
		Sinks []json.RawMessage `json:"sinks"`
	}
	if err := c.call(s.ctx, http.MethodGet, nil, &answer, "sinks"); err != nil {
		return err
	}
	list := answer.Sinks
	return c.print(s.stdout, list, func(w io.Writer) error {
		return table(w, "SINK QUEUE STATE REASON", func(row func(...any)) {
			for _, raw := range list {
				var i sinkInfo
				if err := json.Unmarshal(raw, &i); err != nil {
					row("?", "", "", err)
					continue
				}
				row(printable(i.Name), printable(i.Queue), printable(i.State), printable(i.why()))
			}
		})
	})
}

type sinkShowCmd struct{ sinkArg }

func (c *sinkShowCmd) Run(s *session) error {
	var info json.RawMessage
	if err := c.call(s.ctx, http.MethodGet, nil, &info, "sinks", c.Sink); err != nil {
		return err
	}
	return c.printSink(s, info, "")
}

// printSink prints what the server says of a sink, indented for people.
func (c *sinkArg) printSink(s *session, info json.RawMessage, did string) error {
	return c.print(s.stdout, info, func(w io.Writer) error {
		if did != "" {
			_, err := fmt.Fprintf(w, "%s sink %s\n", did, printable(c.Sink))
			return err
		}
		var b bytes.Buffer
		if err := json.Indent(&b, info, "", "  "); err != nil {
			return err
		}
		b.WriteByte('\n')
		_, err := b.WriteTo(w)
		return err
	})
}

type sinkSetCmd struct {
	sinkArg
	File string `short:"f" required:"" placeholder:"FILE" help:"JSON file with the sink's settings, as in the configuration file; - is standard input."`
}

func (c *sinkSetCmd) Run(s *session) error {
	in := s.stdin
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	spec, err := io.ReadAll(io.LimitReader(in, 1<<20))
	if err != nil {
		return err
	}
	if !json.Valid(spec) {
		return surgetank.Errorf(surgetank.CodeInvalid, "%s is not JSON; for YAML use surgetank apply", c.File)
	}
	var info json.RawMessage
	if err := c.call(s.ctx, http.MethodPut, json.RawMessage(spec), &info, "sinks", c.Sink); err != nil {
		return err
	}
	return c.printSink(s, info, "set")
}

type sinkRmCmd struct{ sinkArg }

func (c *sinkRmCmd) Run(s *session) error {
	if err := c.call(s.ctx, http.MethodDelete, nil, nil, "sinks", c.Sink); err != nil {
		return err
	}
	return c.printSink(s, json.RawMessage(`{"removed":true}`), "removed")
}

type sinkPauseCmd struct{ sinkArg }

func (c *sinkPauseCmd) Run(s *session) error { return c.control(s, "pause", "paused") }

type sinkResumeCmd struct{ sinkArg }

func (c *sinkResumeCmd) Run(s *session) error { return c.control(s, "resume", "resumed") }

func (c *sinkArg) control(s *session, verb, did string) error {
	if c.Sink == "" {
		return errors.New("the sink's name is empty")
	}
	if err := c.call(s.ctx, http.MethodPost, nil, nil, "sinks", c.Sink, verb); err != nil {
		return err
	}
	var info json.RawMessage
	if err := c.call(s.ctx, http.MethodGet, nil, &info, "sinks", c.Sink); err != nil {
		return err
	}
	return c.printSink(s, info, did)
}
