package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
)

// doorShare is the part of the time to stop after which connections are closed. The rest is for the
// sinks, which stop when no request can change them any more.
const doorShare = 0.6

// Stop ends the server in order; see the package comment. ctx limits the time for current work.
// Unfinished work is then interrupted, and the error names it: connections, requests, sinks. When
// Stop returns, nothing of the server runs, even after an error. The broker is closed, so accepted
// commands are on disk.
//
// Stop can take longer than ctx: a disk that does not answer cannot be interrupted.
func (s *Server) Stop(ctx context.Context) error {
	s.stopping.Store(true)
	problems := s.stopDoors(ctx)
	if err := s.token.Remove(); err != nil {
		s.log.Warn("the token for this machine's programs could not be removed; it is no longer valid", "error", err)
	}
	if s.sinks != nil {
		if err := s.sinks.stop(ctx); err != nil {
			problems = append(problems, err)
		}
	}
	if s.broker != nil && s.opts.Broker == nil {
		if err := s.broker.Close(); err != nil && surgetank.CodeOf(err) != surgetank.CodeClosed {
			problems = append(problems, err)
		}
	}
	// The remaining requests end, because their connections and their broker are closed.
	s.requests.end()
	s.once.Do(func() { close(s.quit) })
	s.serving.Wait()
	return errors.Join(problems...)
}

// stopDoors lets connections and requests on all doors finish at the same time.
func (s *Server) stopDoors(ctx context.Context) []error {
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, time.Now().Add(time.Duration(doorShare*float64(time.Until(end)))))
		defer cancel()
	}
	errs := make([]error, len(s.doors)+1)
	var wg sync.WaitGroup
	for i, d := range s.doors {
		wg.Go(func() {
			errs[i] = d.Shutdown(ctx)
			if errors.Is(errs[i], context.DeadlineExceeded) || errors.Is(errs[i], context.Canceled) {
				errs[i] = errors.New("AMQP connections that their clients did not close in time were cut off")
			}
		})
	}
	if s.http != nil {
		wg.Go(func() {
			if s.api != nil {
				s.api.Close() // ends long polls, which have no work to finish
			}
			if s.http.Shutdown(ctx) == nil {
				return
			}
			if n := s.requests.running(); n > 0 {
				errs[len(s.doors)] = fmt.Errorf("%d HTTP requests that did not finish in time were cut off", n)
			}
			_ = s.http.Close() // connections without a request lose nothing
		})
	}
	wg.Wait()
	return errs
}

// requests counts the running HTTP requests.
type requests struct {
	mu    sync.Mutex
	n     int
	ended bool
	none  chan struct{} // closed when, after end was called, the last request has ended
}

// through counts the requests of h. After end it handles none.
func (q *requests) through(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q.mu.Lock()
		if q.ended {
			q.mu.Unlock()
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		q.n++
		q.mu.Unlock()
		defer func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			if q.n--; q.n == 0 && q.none != nil {
				close(q.none)
				q.none = nil
			}
		}()
		h.ServeHTTP(w, r)
	})
}

func (q *requests) running() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n
}

// end admits no more requests and waits for the running ones.
func (q *requests) end() {
	q.mu.Lock()
	q.ended = true
	var none chan struct{}
	if q.n > 0 {
		if q.none == nil {
			q.none = make(chan struct{})
		}
		none = q.none
	}
	q.mu.Unlock()
	if none != nil {
		<-none
	}
}
