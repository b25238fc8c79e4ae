package server

import (
	"context"
	"log/slog"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/config"
	"github.com/surgetank/surgetank/internal/httpapi"
)

type sinks struct{}

func openSinks(context.Context, surgetank.Broker, *slog.Logger) (*sinks, error) { return &sinks{}, nil }

func (s *sinks) api() httpapi.Sinks { return nil }

func (s *sinks) declare(context.Context, config.Sink) error { return nil }

func (s *sinks) stop(context.Context) error { return nil }
