package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/vfs"
)

type verifyCmd struct {
	dataFlag
	output
}

// verifyShape is the JSON output of verify.
type verifyShape struct {
	Shard    int            `json:"shard,omitempty"` // 0: there is one shard
	Data     string         `json:"data"`
	Whole    bool           `json:"whole"`
	Files    int            `json:"files"`
	Bytes    int64          `json:"bytes"`
	Entries  int            `json:"entries"`
	First    uint64         `json:"first"` // offsets
	Last     uint64         `json:"last"`
	Problems []problemShape `json:"problems"`
	Shards   []verifyShape  `json:"shards,omitempty"` // each shard, if there are several; the other figures are then sums
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

// Run reads every byte and every record of the data directories of all shards and changes nothing.
func (c *verifyCmd) Run(s *session) error {
	list, err := c.shards()
	if err != nil {
		return err
	}
	all := verifyShape{Data: c.Data, Whole: true, Problems: []problemShape{}}
	var lines []string
	var failed []error
	for _, d := range list {
		report, err := d.verify(s)
		if err != nil {
			failed = append(failed, d.named(err))
			continue
		}
		shape := verifyShape{Shard: d.shard, Data: d.dir, Whole: report.Whole(), Files: len(report.Files), Bytes: report.Bytes, Entries: report.Entries,
			First: uint64(report.First), Last: uint64(report.Last), Problems: shapeProblems(report.Problems)}
		lines = append(lines, d.lines(report)...)
		if len(list) == 1 {
			all = shape
			break
		}
		all.Shards = append(all.Shards, shape)
		all.Whole = all.Whole && shape.Whole
		all.Files, all.Bytes, all.Entries = all.Files+shape.Files, all.Bytes+shape.Bytes, all.Entries+shape.Entries
		all.Problems = append(all.Problems, shape.Problems...)
	}
	if len(failed) == len(list) {
		return errors.Join(failed...)
	}
	if err := c.print(s.stdout, all, func(w io.Writer) error {
		_, err := io.WriteString(w, strings.Join(lines, ""))
		return err
	}); err != nil {
		return err
	}
	if !all.Whole {
		failed = append(failed, fmt.Errorf("damage in %s; restore a backup, or copy the undamaged part with surgetank repair", plural(len(all.Problems), "place")))
	}
	if len(failed) > 0 {
		return &failure{exitFailed, errors.Join(failed...)}
	}
	return nil
}

// verify reads one shard.
func (d shardData) verify(s *session) (*disklog.Report, error) {
	var bytes int64
	p := startProgress(s.stderr, func() string { return d.prefix() + size(bytes) + " verified" })
	defer p.finish()
	report, err := disklog.Verify(vfs.OS{}, d.log(), func(f disklog.FileReport) { bytes += f.Size })
	if err == nil {
		err = d.records(report)
	}
	return report, err
}

// lines returns the report of one shard in sentences. Each line names the shard, if there are
// several.
func (d shardData) lines(report *disklog.Report) (lines []string) {
	for _, f := range report.Files {
		for _, note := range f.Notes {
			lines = append(lines, fmt.Sprintf("%snote: %s: %s\n", d.prefix(), f.File, note))
		}
	}
	for _, p := range report.Problems {
		lines = append(lines, fmt.Sprintf("%sDAMAGE: %s\n", d.prefix(), p))
	}
	word := "whole"
	if !report.Whole() {
		word = "DAMAGED"
	}
	return append(lines, fmt.Sprintf("%s%s is %s: %s, %s, %s (%d to %d), every checksum read\n",
		d.prefix(), d.dir, word, plural(len(report.Files), "file"), size(report.Bytes), plural(report.Entries, "entry"), report.First, report.Last))
}

// records decodes every record of every whole entry. An undamaged entry may still have a newer
// format.
func (d shardData) records(report *disklog.Report) error {
	return disklog.Inspect(vfs.OS{}, d.log(), true, func(e disklog.EntryInfo) error {
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
	Shard    int           `json:"shard,omitempty"` // 0: there is one shard
	Offset   uint64        `json:"offset"`
	File     string        `json:"file"`
	Position int64         `json:"position"`
	Size     int           `json:"size"`
	Lost     bool          `json:"lost,omitempty"`
	Records  []recordShape `json:"records,omitempty"`
}

// Run lists the entries of the logs of all shards, or decodes one entry. Each shard has entries of
// its own with the same offsets.
func (c *inspectCmd) Run(s *session) error {
	list, err := c.shards()
	if err != nil {
		return err
	}
	found := false
	for _, d := range list {
		if err := c.shard(s, d, &found); err != nil {
			return d.named(err)
		}
	}
	if c.Entry != 0 && !found {
		return surgetank.Errorf(surgetank.CodeNotFound, "%s has no entry %d", c.Data, c.Entry)
	}
	return nil
}

// shard lists the entries of one shard.
func (c *inspectCmd) shard(s *session, d shardData, found *bool) error {
	return disklog.Inspect(vfs.OS{}, d.log(), c.Entry != 0, func(e disklog.EntryInfo) error {
		if c.Entry != 0 && uint64(e.Offset) != c.Entry {
			return nil
		}
		*found = true
		shape := entryShape{Shard: d.shard, Offset: uint64(e.Offset), File: e.File, Position: e.Position, Size: e.Size, Lost: e.Lost}
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
			if _, err := fmt.Fprintf(w, "%s%d  %s at %d  %s%s\n", d.prefix(), shape.Offset, filepath.Base(e.File), e.Position, size(int64(e.Size)), lost); err != nil {
				return err
			}
			for _, r := range shape.Records {
				if _, err := fmt.Fprintln(w, d.prefix()+"  "+r.String()); err != nil {
					return err
				}
			}
			return nil
		})
	})
}
