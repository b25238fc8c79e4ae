package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/httpapi"
	"github.com/surgetank/surgetank/internal/localtoken"
)

// doorServer is the protocol server of a listener.
type doorServer interface {
	// Shutdown accepts no more connections, lets existing ones finish until ctx ends, and then
	// closes them.
	Shutdown(ctx context.Context) error
}

// serveHTTP answers on the HTTP listener: health checks at once, other requests after openDoors has
// installed the API.
func (s *Server) serveHTTP() {
	l := s.listeners.http
	if l == nil {
		return
	}
	starting := http.Handler(http.HandlerFunc(s.startingUp))
	s.handler.Store(&starting)
	current := s.requests.through(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*s.handler.Load()).ServeHTTP(w, r) }))
	limits := httpapi.ServerLimits{TrustedProxies: s.cfg.TrustedProxies, Refused: &s.refused}
	s.http = httpapi.NewServer(current, limits, s.log)
	s.http.TLSConfig = s.tls
	l = httpapi.LimitListener(l, limits)
	s.serving.Go(func() {
		var err error
		if s.tls != nil {
			err = s.http.ServeTLS(l, "", "")
		} else {
			err = s.http.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("the HTTP listener failed", "error", err)
		}
	})
}

// openDoors opens the doors. The API replaces the handler for health checks, and AMQP begins to
// accept.
func (s *Server) openDoors(ctx context.Context) error {
	if err := s.openAMQP(ctx); err != nil {
		return fmt.Errorf("opening AMQP: %w", err)
	}
	if s.http == nil {
		return nil
	}
	near := s.tls == nil && onlyLoopback(s.listeners.http.Addr())
	s.publishToken()
	limits := httpapi.Limits{MaxMessage: int(s.cfg.MaxMessage)}
	if most := s.cfg.MaxMessage/3*4 + 1<<20; most > 64<<20 { // the largest request: a body in base64, and the rest
		limits.MaxBody, limits.MaxBodies = most, 8*most
	}
	s.api = httpapi.New(httpapi.Options{
		Policies: s.doored, Auth: s.users, Sinks: s.sinks.api(), Version: s.opts.Version, Logger: s.log,
		Ready: s.notReady, State: s.state, Refusing: s.refusing, Limits: limits,
		TrustLoopback: func() bool { return near && s.users.Unclaimed() }, LocalToken: s.token.Is, TrustedProxies: s.cfg.TrustedProxies,
		Refused:    &s.refused,
		Collectors: s.collectors(),
	})
	open := http.Handler(s.api)
	if s.amqp != nil {
		open = withManagement(s.api, s.amqp.Management())
	}
	s.handler.Store(&open)
	return nil
}

// collectors returns the metrics of all parts except the HTTP door, which has its own.
func (s *Server) collectors() []prometheus.Collector {
	list := []prometheus.Collector{scrubCollector{s.broker}, diskCollector{s.broker}, stateCollector{s.broker}, sinkCollector{s.sinks.Manager}, limitCollector{&s.refused}}
	if s.amqp != nil {
		list = append(list, amqpCollector{s.amqp})
	}
	return list
}

// publishToken writes the token with which this machine's programs log in. If it cannot be written,
// for example on a full disk, the server works without it, and programs log in as users.
func (s *Server) publishToken() {
	if s.cfg.Data == "" {
		return // a broker in memory has no directory
	}
	var err error
	if s.token, err = localtoken.Publish(s.cfg.Data, s.listeners.http.Addr()); err != nil {
		s.log.Warn("the token for this machine's programs could not be written everywhere: where it is missing, the command line needs a user and a password, or --token-file",
			"file", filepath.Join(s.cfg.Data, localtoken.Name), "error", err)
	}
}

// startingUp answers while the data directory is being opened, which can take a while after a
// crash.
func (s *Server) startingUp(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/healthz" {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte("{\"status\":\"ok\"}\n")) // if this fails, the client is gone
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"type": "about:blank", "title": "starting", "status": http.StatusServiceUnavailable,
		"code": surgetank.CodeBusy, "detail": "the server is starting: it reads its log; try again soon",
	})
}
