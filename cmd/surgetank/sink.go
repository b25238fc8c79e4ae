package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/surgetank/surgetank"
)

// sinkCmds are the commands for sinks: consumers inside the server that write to a database.
type sinkCmds struct {
	Ls     sinkLsCmd     `cmd:"" help:"List sinks with their state."`
	Show   sinkShowCmd   `cmd:"" help:"Show one sink: settings, without secrets, state and figures."`
	Set    sinkSetCmd    `cmd:"" help:"Create a sink, or replace its settings. The target is checked first."`
	Rm     sinkRmCmd     `cmd:"" help:"Remove a sink. Its queue and its rows stay."`
	Pause  sinkPauseCmd  `cmd:"" help:"Stop writing after the current batches."`
	Resume sinkResumeCmd `cmd:"" help:"Write again; choose how to continue a sink whose queue and target contradict each other."`
}

type sinkArg struct {
	Sink string `arg:"" help:"The sink's name."`
	remote
	output
}

// sinkInfo is the part of a sink's state that people see; --json prints the server's whole answer.
type sinkInfo struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Paused bool   `json:"paused"`
	Reason string `json:"reason"`
	Queue  string `json:"queue"`

	HeldBack   int64  `json:"held_back"`
	HeldReason string `json:"held_back_reason"`
}

// why is the reason of the state, or the reason why messages are held back while others continue.
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

// printSink prints the server's description of a sink, indented for people.
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

func (c *sinkPauseCmd) Run(s *session) error { return c.control(s, "pause", "paused", nil) }

type sinkResumeCmd struct {
	sinkArg
	From       string `placeholder:"target|queue" enum:",target,queue" default:"" help:"For a refused sink: which side is right. target: ack the messages that the target has, write the rest. queue: write all waiting messages."`
	AcceptLoss bool   `help:"For a refused sink: continue with both sides unchanged; missing rows stay missing."`
	Yes        bool   `short:"y" help:"Do not ask."`
}

// refusal is the server's description of a queue and a target that contradict each other.
type refusal struct {
	Text string `json:"text"`
	Ways []struct {
		Way     string `json:"way"`
		Command string `json:"command"`
		Effect  string `json:"effect"`
	} `json:"ways"`
}

func (c *sinkResumeCmd) Run(s *session) error {
	var body map[string]any
	way := c.From
	switch {
	case c.AcceptLoss && way != "":
		return surgetank.Errorf(surgetank.CodeInvalid, "--from and --accept-loss are two ways; choose one")
	case c.AcceptLoss:
		way, body = "accept-loss", map[string]any{"accept_loss": true}
	case way != "":
		body = map[string]any{"from": way}
	default:
		return c.control(s, "resume", "resumed", nil)
	}
	if err := c.confirm(s, way); err != nil {
		return err
	}
	return c.control(s, "resume", "resumed", body)
}

// confirm describes the effect of the chosen way, and asks for confirmation.
func (c *sinkResumeCmd) confirm(s *session, way string) error {
	var info struct {
		State   string   `json:"state"`
		Refusal *refusal `json:"refusal"`
	}
	if err := c.call(s.ctx, http.MethodGet, nil, &info, "sinks", c.Sink); err != nil {
		return err
	}
	if info.Refusal == nil {
		return nil // the server answers that there is nothing to choose
	}
	effect := ""
	for _, w := range info.Refusal.Ways {
		if w.Way == way {
			effect = w.Effect
		}
	}
	if effect == "" {
		return nil // the server answers which ways there are
	}
	if _, err := fmt.Fprintf(s.stderr, "%s\nThis way %s.\n", printable(info.Refusal.Text), printable(effect)); err != nil {
		return err
	}
	if c.Yes {
		return nil
	}
	if _, tty := isTerminal(s.stderr); !tty {
		return surgetank.Errorf(surgetank.CodeInvalid, "sink %s was not resumed, because without a terminal the command cannot ask for confirmation; add --yes to resume it", c.Sink)
	}
	if _, err := fmt.Fprint(s.stderr, "Go on? [y/N] "); err != nil {
		return err
	}
	answer, err := bufio.NewReader(io.LimitReader(s.stdin, 64)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}

func (c *sinkArg) control(s *session, verb, did string, body map[string]any) error {
	if c.Sink == "" {
		return errors.New("the sink's name is empty")
	}
	var in any
	if body != nil {
		in = body
	}
	if err := c.call(s.ctx, http.MethodPost, in, nil, "sinks", c.Sink, verb); err != nil {
		return err
	}
	var info json.RawMessage
	if err := c.call(s.ctx, http.MethodGet, nil, &info, "sinks", c.Sink); err != nil {
		return err
	}
	return c.printSink(s, info, did)
}
