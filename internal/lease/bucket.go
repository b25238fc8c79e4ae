package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/lease/rules"
)

// codeWrongLast is JetStream's error for a refused expected revision.
const codeWrongLast = 10071

// openBucket opens the bucket, and creates it if it does not exist. It retries while NATS has no
// leader.
func openBucket(ctx context.Context, nc *nats.Conn, o *Options) (jetstream.KeyValue, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, surgetank.Errorf(surgetank.CodeInternal, "JetStream cannot be used: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, openIn)
	defer cancel()
	for {
		kv, err := tryBucket(ctx, js, o)
		if err == nil {
			return kv, nil
		}
		if surgetank.CodeOf(err) == surgetank.CodeInvalid {
			return nil, err
		}
		if !wait(ctx, o.Clock, 200*time.Millisecond) {
			return nil, surgetank.Errorf(surgetank.CodeUnavailable,
				"opening the bucket %s failed: %w; check that the NATS cluster has %d servers with JetStream, and that the account may use it", o.Bucket, err, o.Replicas)
		}
	}
}

// wait waits for a time. It returns false if the context ends before.
func wait(ctx context.Context, c clock.Clock, d time.Duration) bool {
	t := c.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return true
	case <-ctx.Done():
		return false
	}
}

func tryBucket(ctx context.Context, js jetstream.JetStream, o *Options) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	kv, err := js.KeyValue(ctx, o.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: o.Bucket, Description: "owners of Surgetank's logs", History: 1, Storage: jetstream.FileStorage,
			Replicas: o.Replicas, LimitMarkerTTL: markerTTL, MaxValueSize: 64 << 10,
		})
	}
	if err != nil {
		return nil, err // also if another node creates it now
	}
	status, err := kv.Status(ctx)
	if err != nil {
		return nil, err
	}
	b, ok := status.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return nil, fmt.Errorf("the status of the bucket is a %T", status)
	}
	switch c := b.StreamInfo().Config; {
	case c.Replicas < o.Replicas, c.Storage != jetstream.FileStorage, c.MaxMsgsPerSubject != 1, !c.AllowMsgTTL, c.SubjectDeleteMarkerTTL <= 0, c.MaxAge != 0, c.Mirror != nil:
		return nil, surgetank.Errorf(surgetank.CodeInvalid,
			"the bucket %s has other settings than a node needs: replicas %d (need %d), storage %v (file), history %d (1), marker TTL %v (1s), max age %v (none); delete it while no node runs, and it is created anew",
			o.Bucket, c.Replicas, o.Replicas, c.Storage, c.MaxMsgsPerSubject, c.SubjectDeleteMarkerTTL, c.MaxAge)
	}
	return kv, nil
}

// message encodes a write. reply is the subject of its answer.
func (n *Node) message(w rules.Write, reply string) (*nats.Msg, error) {
	b, err := json.Marshal(w.Record)
	if err != nil {
		return nil, err
	}
	m := nats.NewMsg("$KV." + n.o.Bucket + "." + w.Key)
	m.Reply, m.Data = reply, b
	m.Header.Set(jetstream.MsgTTLHeader, n.o.TTL.String())
	if w.Expect != rules.Any {
		m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(w.Expect, 10))
	}
	return m, nil
}

// answer decodes the answer to a write.
func answer(m *nats.Msg) (rules.Outcome, uint64) {
	var a struct {
		Seq   uint64 `json:"seq"`
		Error *struct {
			ErrCode int `json:"err_code"`
		} `json:"error"`
	}
	switch err := json.Unmarshal(m.Data, &a); {
	case noResponders(m) || err != nil:
		return rules.Failed, 0
	case a.Error != nil && a.Error.ErrCode == codeWrongLast:
		return rules.Refused, 0
	case a.Error != nil || a.Seq == 0:
		return rules.Failed, 0
	}
	return rules.Stored, a.Seq
}

func noResponders(m *nats.Msg) bool { return len(m.Data) == 0 && m.Header.Get("Status") == "503" }

// changed decodes an entry of the watch. A value that cannot be read is treated as removed: its key
// is vacant, and the next owner replaces the value.
func changed(e jetstream.KeyValueEntry) rules.Event {
	c := rules.Changed{Key: e.Key(), Rev: e.Revision()}
	var r rules.Record
	if e.Operation() == jetstream.KeyValuePut && json.Unmarshal(e.Value(), &r) == nil {
		c.Record = &r
	}
	return c
}

// received handles a message to the node's inbox.
func (n *Node) received(m *nats.Msg) {
	kind, rest, _ := strings.Cut(strings.TrimPrefix(m.Subject, n.inbox+"."), ".")
	switch kind {
	case "write":
		if id, err := strconv.ParseUint(rest, 10, 64); err == nil {
			outcome, rev := answer(m)
			n.post(rules.Answered{ID: id, Outcome: outcome, Rev: rev})
		}
	case "ping":
		n.post(rules.Pinged{Node: rest, NoResponders: noResponders(m)})
	}
}
