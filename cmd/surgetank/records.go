package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/settings"
)

// kindNames are the names of record kinds by their numbers on disk. A number never changes its
// meaning.
var kindNames = map[queue.Kind]string{
	1: "enqueued", 2: "moved", 3: "acked", 4: "returned", 5: "transferred", 6: "removed", 7: "purged",
	8: "queue_set", 9: "queue_gone", 10: "meta_set", 11: "epoch", 12: "opened", 13: "confirmed", 14: "closed", 15: "failed",
}

// recordShape is one record of an entry in JSON output.
type recordShape struct {
	Kind     string         `json:"kind"`
	Time     time.Time      `json:"time"`
	Queue    uint64         `json:"queue,omitempty"`
	Seqs     []uint64       `json:"seqs,omitempty"`
	Targets  []string       `json:"targets,omitempty"` // message ids
	Group    string         `json:"group,omitempty"`
	Name     string         `json:"name,omitempty"`
	To       string         `json:"to,omitempty"` // message id
	Reason   string         `json:"reason,omitempty"`
	Attempts uint32         `json:"attempts,omitempty"`
	Below    uint64         `json:"below,omitempty"`
	Epoch    uint64         `json:"epoch,omitempty"`
	First    uint64         `json:"first,omitempty"` // first number of a publisher
	Count    uint64         `json:"count,omitempty"`
	Bytes    uint32         `json:"bytes,omitempty"` // size of a body or value
	Body     string         `json:"body,omitempty"`  // beginning of the body
	Settings map[string]any `json:"settings,omitempty"`
}

// records decodes an entry. It leaves out values of metadata, because they contain password hashes.
func (c *inspectCmd) records(entry []byte) ([]recordShape, error) {
	shapes := []recordShape{}
	err := queue.Records(entry, func(h queue.EntryHeader, r *queue.Record) error {
		shape := recordShape{Kind: kindNames[r.Kind], Time: time.Unix(0, h.Time).UTC()}
		if shape.Kind == "" {
			shape.Kind = fmt.Sprintf("kind %d", r.Kind)
		}
		switch shape.Kind {
		case "enqueued", "moved":
			shape.Bytes = r.BodySize
			for _, t := range r.Targets {
				shape.Targets = append(shape.Targets, surgetank.MessageID{Queue: t.Queue, Seq: t.Seq}.String())
				shape.Group = t.Group
			}
			if c.Body {
				var m queue.Stored
				if err := queue.ReadMessage(entry, r.Ref, &m); err != nil {
					return err
				}
				shape.Body = excerpt(m.Message.Body, 200)
			}
		case "acked", "removed", "returned", "failed":
			shape.Queue, shape.Seqs = r.Queue, append([]uint64(nil), r.Seqs...)
			shape.Attempts = r.Attempts
			if shape.Kind == "removed" {
				shape.Reason = r.Reason.String()
			}
			if shape.Kind == "failed" {
				shape.Reason = r.Detail
			}
		case "transferred":
			shape.Queue, shape.Seqs, shape.Attempts = r.Queue, append([]uint64(nil), r.Seqs...), r.Attempts
			shape.To, shape.Reason, shape.Name = surgetank.MessageID{Queue: r.ToQueue, Seq: r.ToSeq}.String(), r.Reason.String(), r.Name
		case "purged":
			shape.Queue, shape.Below = r.Queue, r.Below
		case "queue_set":
			shape.Queue, shape.Name, shape.Settings = r.Queue, r.Name, settings.Encode(r.Config)
		case "queue_gone":
			shape.Queue = r.Queue
		case "meta_set":
			shape.Name, shape.Bytes = r.Namespace+"/"+r.Name, uint32(len(r.Value))
		case "epoch", "opened":
			shape.Epoch = r.Epoch
		case "confirmed":
			shape.Name, shape.First, shape.Count = r.Name, r.First, r.Count
		}
		shapes = append(shapes, shape)
		return nil
	})
	return shapes, err
}

// String writes a record as one line.
func (r recordShape) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", r.Time.Format("2006-01-02T15:04:05.000Z"), r.Kind)
	for _, f := range []struct {
		name string
		v    any
		show bool
	}{
		{"queue", r.Queue, r.Queue != 0}, {"name", r.Name, r.Name != ""}, {"messages", strings.Join(r.Targets, " "), len(r.Targets) > 0},
		{"group", r.Group, r.Group != ""}, {"seqs", r.Seqs, len(r.Seqs) > 0}, {"to", r.To, r.To != ""}, {"reason", r.Reason, r.Reason != ""},
		{"attempts", r.Attempts, r.Attempts != 0}, {"below", r.Below, r.Below != 0}, {"epoch", r.Epoch, r.Epoch != 0},
		{"first", r.First, r.First != 0}, {"count", r.Count, r.Count != 0},
		{"bytes", r.Bytes, r.Bytes != 0}, {"settings", r.Settings, len(r.Settings) > 0}, {"body", r.Body, r.Body != ""},
	} {
		if f.show {
			fmt.Fprintf(&b, " %s=%s", f.name, printable(fmt.Sprint(f.v)))
		}
	}
	return b.String()
}

// private makes a directory that only its user can read.
func private(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return surgetank.Errorf(surgetank.CodeInvalid, "cannot make the directory: %w", err)
	}
	return nil
}
