package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/config"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/httpapi"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/settings"
	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/postgres"
	"github.com/surgetank/surgetank/sink/sqlite"
)

// sinks manages the server's sinks. Its manager knows every kind of target that this program
// supports.
type sinks struct {
	*sink.Manager
	dir string // directory for the files of SQLite sinks; config.AnyPath: any directory
}

// sinkBroker is the broker for sinks. Sinks read queues under the rules of package policy, so a
// sink cannot read a queue that is exclusive to a connection.
type sinkBroker struct {
	door.Broker
	doored *policy.Broker
}

// Attach attaches a sink. See door.Broker.
func (b sinkBroker) Attach(ctx context.Context, queue string, o door.SubscribeOptions) (door.Subscription, error) {
	return b.doored.Attach(ctx, queue, o)
}

// openSinks starts the stored sinks. Relative paths of SQLite files start at base, wherever the
// server is started.
func openSinks(ctx context.Context, b *embedded.Broker, doored *policy.Broker, base, dir string, log *slog.Logger) (*sinks, error) {
	inner, err := door.Of(b)
	if err != nil {
		return nil, err
	}
	m, err := sink.NewManager(ctx, sinkBroker{inner, doored}, map[string]sink.Factory{"postgres": postgres.New, "sqlite": sqlite.New}, sink.Options{Logger: log, Dir: base})
	if err != nil {
		return nil, err
	}
	return &sinks{m, dir}, nil
}

func (s *sinks) api() httpapi.Sinks { return s }

// OnQueue describes the sinks that read a queue.
func (s *sinks) OnQueue(queue string) []settings.QueueSink {
	var list []settings.QueueSink
	for _, b := range s.Manager.OnQueue(queue) {
		q := settings.QueueSink{Name: b.Name, State: string(b.State), Reason: b.Reason}
		if l := b.Level; l != nil {
			q.Level = &settings.SinkLevel{Limit: l.Limit, InForce: l.InForce, Batch: l.Batch, Reason: l.Reason, Changed: l.Changed, Ratio: l.Ratio, State: l.State}
		}
		list = append(list, q)
	}
	return list
}

// declare creates or changes a sink of the configuration file. A sink that already has these
// settings stays unchanged, whether its target is up or not. The author of the file has access to
// the machine, so the sink may name every file.
func (s *sinks) declare(ctx context.Context, k config.Sink) error {
	_, _, err := s.Manager.Put(ctx, k.Name, k.JSON())
	return err
}

// Put creates or changes a sink for the user of ctx. See httpapi.Sinks.
func (s *sinks) Put(ctx context.Context, name string, spec json.RawMessage) (json.RawMessage, bool, error) {
	if err := s.mayUse(auth.UserOf(ctx), spec); err != nil {
		return nil, false, err
	}
	return s.Manager.Put(ctx, name, spec)
}

// mayUse refuses a SQLite file outside the directory for such files, unless the machine's own
// programs ask. Otherwise a remote administrator could read and write every file that the server
// can.
func (s *sinks) mayUse(u *auth.User, raw json.RawMessage) error {
	spec, err := sink.ParseSpec(raw)
	if err != nil || spec.Kind != "sqlite" || s.dir == config.AnyPath || u.IsLocal() {
		return nil // the manager reports an invalid spec
	}
	if inside(s.dir, spec.Address) {
		if err := os.MkdirAll(filepath.Dir(spec.Address), 0o700); err != nil {
			return surgetank.FieldErrorf("sqlite.path", "sqlite.path: the directory cannot be made: %v", err)
		}
		return nil
	}
	return &surgetank.Error{Code: surgetank.CodeDenied, Field: "sqlite.path", Message: "sqlite.path: over the network only files below " + s.dir +
		" may be named, such as " + filepath.Join(s.dir, "orders.db") + "; set the sink on the server's machine (surgetank sink set, or the file of serve --config), or name another directory as server.sqlite_dir (any: no limit) in that file"}
}

// inside reports whether path is an absolute path below dir, after following links.
func inside(dir, path string) bool {
	if !filepath.IsAbs(path) || strings.HasPrefix(path, "file:") {
		return false
	}
	dir, path = resolve(dir), resolve(path)
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != "." && filepath.IsLocal(rel)
}

// resolve follows the links in the part of a path that exists.
func resolve(path string) string {
	path = filepath.Clean(path)
	rest := ""
	for p := path; ; {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			return filepath.Join(real, rest)
		}
		if _, err := os.Lstat(p); err == nil {
			return "" // a link to a missing file could lead anywhere later
		}
		up := filepath.Dir(p)
		if up == p {
			return path
		}
		rest, p = filepath.Join(filepath.Base(p), rest), up
	}
}

func (s *sinks) stop(ctx context.Context) error { return s.Close(ctx) }
