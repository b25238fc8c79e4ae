package jetlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/surgetank/surgetank"
)

// Replicas is the number of replicas of each stream.
const Replicas = 3

// Config describes the streams of a log, for Create.
type Config struct {
	ID string // letters, digits, - and _
	// MaxBytes is the most bytes of the log's stream; 0: no limit of the log's own.
	MaxBytes int64
	// Replicas is 3, or 1 for tests; 0: 3.
	Replicas int
	// Tags are the tags of the servers that may have replicas.
	Tags []string
}

func logStream(id string) string  { return "SURGETANK_LOG_" + id }
func snapStream(id string) string { return "SURGETANK_SNAP_" + id }
func logSubject(id string) string { return "surgetank.log." + id }
func snapPrefix(id string) string { return "surgetank.snap." + id + "." }

// checkID refuses ids that cannot be a part of a subject or of a stream's name.
func checkID(id string) error {
	if id == "" || len(id) > 64 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return surgetank.FieldErrorf("id", "the id %q of a log must have 1 to 64 letters, digits, - and _", id)
	}
	return nil
}

// streams returns the settings of the two streams of a log.
func streams(c Config) (log, snap jetstream.StreamConfig) {
	log = jetstream.StreamConfig{
		Name: logStream(c.ID), Subjects: []string{logSubject(c.ID)}, Description: "log of Surgetank",
		Storage: jetstream.FileStorage, Replicas: cmp.Or(c.Replicas, Replicas), Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
		MaxBytes: cmp.Or(c.MaxBytes, -1), MaxMsgs: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1, MaxConsumers: -1,
		Duplicates: 100 * time.Millisecond, AllowDirect: true, DenyDelete: true, PersistMode: jetstream.DefaultPersistMode,
	}
	if len(c.Tags) > 0 {
		log.Placement = &jetstream.Placement{Tags: c.Tags}
	}
	snap = log
	snap.Name, snap.Subjects, snap.Description = snapStream(c.ID), []string{snapPrefix(c.ID) + ">"}, "snapshots of a log of Surgetank"
	snap.MaxBytes, snap.MaxMsgsPerSubject = -1, 1 // a piece that is stored twice replaces itself
	return log, snap
}

// Create creates the streams of a log that do not exist. It does not change existing ones.
func Create(ctx context.Context, nc *nats.Conn, c Config) error {
	if err := checkID(c.ID); err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return surgetank.Errorf(surgetank.CodeInternal, "JetStream cannot be used: %w", err)
	}
	log, snap := streams(c)
	for _, config := range []jetstream.StreamConfig{log, snap} {
		_, err := js.Stream(ctx, config.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			if _, err = js.CreateStream(ctx, config); errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
				err = nil // another process created it meanwhile, and Acquire checks it
			}
		}
		if err != nil {
			return surgetank.Errorf(surgetank.CodeUnavailable, "creating the stream %s failed: %w; check that the NATS cluster has %d servers with JetStream and that the account may use it", config.Name, err, config.Replicas)
		}
	}
	return nil
}

// problems compares a stream's settings with those that a log needs.
func problems(got, want jetstream.StreamConfig, anyReplicas bool) (list []string) {
	need := func(ok bool, setting string, got, want any) {
		if !ok {
			list = append(list, fmt.Sprintf("%s is %v and must be %v", setting, got, want))
		}
	}
	need(len(got.Subjects) == 1 && got.Subjects[0] == want.Subjects[0], "subjects", got.Subjects, want.Subjects)
	need(got.Storage == want.Storage, "storage", got.Storage, want.Storage)
	need(got.Replicas >= Replicas || anyReplicas, "num_replicas", got.Replicas, Replicas)
	need(got.Retention == want.Retention, "retention", got.Retention, want.Retention)
	need(got.Discard == want.Discard, "discard", got.Discard, want.Discard)
	need(got.MaxAge == 0, "max_age", got.MaxAge, 0)
	need(got.MaxMsgs <= 0, "max_msgs", got.MaxMsgs, -1)
	need(max(got.MaxMsgsPerSubject, -1) == want.MaxMsgsPerSubject, "max_msgs_per_subject", got.MaxMsgsPerSubject, want.MaxMsgsPerSubject)
	need(got.MaxMsgSize <= 0 || got.MaxMsgSize >= maxData, "max_msg_size", got.MaxMsgSize, -1)
	need(got.PersistMode == want.PersistMode, "persist_mode", got.PersistMode, want.PersistMode)
	need(got.AllowDirect, "allow_direct", got.AllowDirect, true)
	need(got.DenyDelete, "deny_delete", got.DenyDelete, true)
	need(!got.DenyPurge, "deny_purge", got.DenyPurge, false)
	need(!got.Sealed, "sealed", got.Sealed, false)
	need(!got.NoAck, "no_ack", got.NoAck, false)
	need(!got.AllowRollup, "allow_rollup_hdrs", got.AllowRollup, false)
	need(!got.AllowMsgTTL, "allow_msg_ttl", got.AllowMsgTTL, false)
	need(got.Mirror == nil && len(got.Sources) == 0, "mirror or sources", "set", "empty")
	need(got.SubjectTransform == nil, "subject_transform", "set", "empty")
	return list
}
