package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/vfs"
)

// dataFlag names the data directory of the offline commands. They lock the directory, so the server
// must be stopped.
type dataFlag struct {
	Data string `default:"./surgetank-data" placeholder:"DIR" help:"Data directory of a stopped server. Default ${default}."`
}

// log returns the directory of the log and its snapshots.
func (d dataFlag) log() string { return filepath.Join(d.Data, "log") }

type verifyCmd struct {
	dataFlag
	output
}

// verifyShape is the JSON output of verify.
type verifyShape struct {
	Data     string         `json:"data"`
	Whole    bool           `json:"whole"`
	Files    int            `json:"files"`
	Bytes    int64          `json:"bytes"`
	Entries  int            `json:"entries"`
	First    uint64         `json:"first"` // offsets
	Last     uint64         `json:"last"`
	Problems []problemShape `json:"problems"`
}

type problemShape struct {
	File      string `json:"file"`
	Offset    int64  `json:"offset"`
	What      string `json:"what"`
	FirstLost uint64 `json:"first_lost,omitempty"`
	LastLost  uint64 `json:"last_lost,omitempty"`
}

func shapeProblems(list []disklog.Problem) []problemShape {
	out := make([]problemShape, len(list))
	for i, p := range list {
		out[i] = problemShape{p.File, p.Offset, p.What, uint64(p.FirstLost), uint64(p.LastLost)}
	}
	return out
}

// Run reads every byte and every record of a data directory and changes nothing.
func (c *verifyCmd) Run(s *session) error {
	var bytes int64
	p := startProgress(s.stderr, func() string { return size(bytes) + " verified" })
	report, err := disklog.Verify(vfs.OS{}, c.log(), func(f disklog.FileReport) { bytes += f.Size })
	if err == nil {
		err = c.records(report)
	}
	p.finish()
	if err != nil {
		return err
	}
	shape := verifyShape{Data: c.Data, Whole: report.Whole(), Files: len(report.Files), Bytes: report.Bytes, Entries: report.Entries,
		First: uint64(report.First), Last: uint64(report.Last), Problems: shapeProblems(report.Problems)}
	if err := c.print(s.stdout, shape, func(w io.Writer) error {
		for _, f := range report.Files {
			for _, note := range f.Notes {
				fmt.Fprintf(w, "note: %s: %s\n", f.File, note)
			}
		}
		for _, p := range report.Problems {
			fmt.Fprintf(w, "DAMAGE: %s\n", p)
		}
		word := "whole"
		if !report.Whole() {
			word = "DAMAGED"
		}
		_, err := fmt.Fprintf(w, "%s is %s: %s, %s, %s (%d to %d), every checksum read\n",
			c.Data, word, plural(len(report.Files), "file"), size(report.Bytes), plural(report.Entries, "entry"), report.First, report.Last)
		return err
	}); err != nil {
		return err
	}
	if !report.Whole() {
		return &failure{exitFailed, fmt.Errorf("damage in %s; restore a backup, or copy the undamaged part with surgetank repair", plural(len(report.Problems), "place"))}
	}
	return nil
}

// records decodes every record of every whole entry. An undamaged entry may still have a newer
// format.
func (c *verifyCmd) records(report *disklog.Report) error {
	return disklog.Inspect(vfs.OS{}, c.log(), true, func(e disklog.EntryInfo) error {
		if e.Lost {
			return nil
		}
		if err := queue.Records(e.Data, func(queue.EntryHeader, *queue.Record) error { return nil }); err != nil {
			report.Problems = append(report.Problems, disklog.Problem{File: e.File, Offset: e.Position, What: err.Error(), FirstLost: e.Offset, LastLost: e.Offset})
		}
		return nil
	})
}

type inspectCmd struct {
	dataFlag
	Entry uint64 `placeholder:"OFFSET" help:"Show the records of this entry. Default: list all entries."`
	Body  bool   `help:"With --entry: show the beginning of message bodies."`
	output
}

// entryShape is one entry in JSON output, one per line.
type entryShape struct {
	Offset   uint64        `json:"offset"`
	File     string        `json:"file"`
	Position int64         `json:"position"`
	Size     int           `json:"size"`
	Lost     bool          `json:"lost,omitempty"`
	Records  []recordShape `json:"records,omitempty"`
}

// Run lists the entries of a log, or decodes one entry.
func (c *inspectCmd) Run(s *session) error {
	found := false
	err := disklog.Inspect(vfs.OS{}, c.log(), c.Entry != 0, func(e disklog.EntryInfo) error {
		if c.Entry != 0 && uint64(e.Offset) != c.Entry {
			return nil
		}
		found = true
		shape := entryShape{Offset: uint64(e.Offset), File: e.File, Position: e.Position, Size: e.Size, Lost: e.Lost}
		if c.Entry != 0 && !e.Lost {
			var err error
			if shape.Records, err = c.records(e.Data); err != nil {
				return surgetank.Errorf(surgetank.CodeCorrupt, "entry %d of %s cannot be decoded: %w", e.Offset, e.File, err)
			}
		}
		return c.print(s.stdout, shape, func(w io.Writer) error {
			lost := ""
			if e.Lost {
				lost = " LOST"
			}
			if _, err := fmt.Fprintf(w, "%d  %s at %d  %s%s\n", shape.Offset, filepath.Base(e.File), e.Position, size(int64(e.Size)), lost); err != nil {
				return err
			}
			for _, r := range shape.Records {
				if _, err := fmt.Fprintln(w, "  "+r.String()); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err == nil && c.Entry != 0 && !found {
		err = surgetank.Errorf(surgetank.CodeNotFound, "%s has no entry %d", c.Data, c.Entry)
	}
	return err
}
