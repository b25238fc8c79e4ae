package server

import (
	"context"
	"log/slog"

	"github.com/surgetank/surgetank/internal/config"
	"github.com/surgetank/surgetank/internal/httpapi"
	"github.com/surgetank/surgetank/internal/settings"
	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/postgres"
	"github.com/surgetank/surgetank/sink/sqlite"
)

// sinks are the server's sinks: the manager with every target that this program has.
type sinks struct{ manager *sink.Manager }

// openSinks starts the stored sinks. Relative paths of SQLite files begin at dir, wherever the server is started.
func openSinks(ctx context.Context, b sink.Broker, dir string, log *slog.Logger) (*sinks, error) {
	m, err := sink.NewManager(ctx, b, map[string]sink.Factory{"postgres": postgres.New, "sqlite": sqlite.New}, sink.Options{Logger: log, Dir: dir})
	if err != nil {
		return nil, err
	}
	return &sinks{m}, nil
}

// api is the manager for the HTTP interface.
func (s *sinks) api() httpapi.Sinks { return shownSinks{s.manager} }

type shownSinks struct{ *sink.Manager }

// OnQueue describes the sinks that read a queue.
func (s shownSinks) OnQueue(queue string) []settings.QueueSink {
	var list []settings.QueueSink
	for _, b := range s.Manager.OnQueue(queue) {
		list = append(list, settings.QueueSink{Name: b.Name, State: string(b.State), Reason: b.Reason})
	}
	return list
}

// declare sets a sink of the configuration file. One that is set so already is left as it is, whether its target is up or not.
func (s *sinks) declare(ctx context.Context, k config.Sink) error {
	_, _, err := s.manager.Put(ctx, k.Name, k.JSON())
	return err
}

func (s *sinks) stop(ctx context.Context) error { return s.manager.Close(ctx) }
