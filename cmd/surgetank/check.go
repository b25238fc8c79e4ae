package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/surgetank/surgetank/internal/config"
)

// fileFlag names the configuration file of check and apply.
type fileFlag struct {
	File string `short:"f" required:"" placeholder:"FILE" help:"Configuration file (YAML)."`
}

type checkCmd struct {
	fileFlag
	output
}

// checkShape is the JSON output of check.
type checkShape struct {
	File     string          `json:"file"`
	OK       bool            `json:"ok"`
	Queues   int             `json:"queues"`
	Sinks    int             `json:"sinks"`
	Policies int             `json:"policies"`
	Problems config.Problems `json:"problems"`
}

// Run reads a file and reports every mistake. It contacts no server: apply finds out whether a
// sink's table exists.
func (c *checkCmd) Run(s *session) error {
	shape := checkShape{File: c.File, Problems: config.Problems{}}
	f, err := config.Load(c.File)
	if err != nil {
		if !errors.As(err, &shape.Problems) {
			return err
		}
		if c.JSON {
			if err := writeJSON(s.stdout, shape); err != nil {
				return err
			}
			return &failure{exitFailed, fmt.Errorf("%s has %s", c.File, plural(len(shape.Problems), "mistake"))}
		}
		return mistakes(s.stderr, shape.Problems)
	}
	shape.OK, shape.Queues, shape.Sinks, shape.Policies = true, len(f.Queues), len(f.Sinks), len(f.Policies)
	return c.print(s.stdout, shape, func(w io.Writer) error {
		line := fmt.Sprintf("%s is good: %s, %s", c.File, plural(len(f.Queues), "queue"), plural(len(f.Sinks), "sink"))
		switch n := len(f.Policies); {
		case n == 1:
			line += ", 1 policy"
		case n > 1:
			line += fmt.Sprintf(", %d policies", n)
		}
		_, err := fmt.Fprintln(w, line)
		return err
	})
}

// mistakes prints problems in the form that editors understand, and returns the error of the
// command.
func mistakes(w io.Writer, ps config.Problems) error {
	for _, p := range ps {
		fmt.Fprintln(w, printable(p.String()))
	}
	return &failure{exitFailed, fmt.Errorf("%s; nothing was changed", plural(len(ps), "mistake"))}
}
