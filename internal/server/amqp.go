package server

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/amqp"
	"github.com/surgetank/surgetank/internal/httpapi"
)

// openAMQP makes the AMQP door and lets its listeners accept.
func (s *Server) openAMQP(ctx context.Context) error {
	if s.listeners.amqp == nil && s.listeners.amqps == nil {
		return nil
	}
	door, err := amqp.NewServer(ctx, amqp.Options{
		Policies: s.doored, Auth: s.users, Logger: s.log, OwnVersion: s.opts.Version, Refused: &s.refused,
		Limits:   amqp.Limits{MaxMessage: s.cfg.MaxMessage},
		HTTPPeer: func(r *http.Request) netip.Addr { return httpapi.Peer(r, s.cfg.TrustedProxies) },
	})
	if err != nil {
		return err
	}
	s.doors = append(s.doors, door)
	s.amqp = door
	for _, l := range []net.Listener{s.listeners.amqp, s.listeners.amqps} {
		if l == nil {
			continue
		}
		if l == s.listeners.amqps {
			l = tls.NewListener(l, s.tls)
		}
		s.serving.Go(func() {
			if err := door.Serve(l); err != nil && !s.stopping.Load() {
				s.log.Error("the AMQP listener failed", "address", l.Addr(), "error", err)
			}
		})
	}
	s.serving.Go(func() { s.watchDisk(door) })
	return nil
}

// diskAlarm is RabbitMQ's text for this reason.
const diskAlarm = "low on disk"

// openingAlarm is the reason while the log has failed.
const openingAlarm = "the log failed and is being opened again"

// watchDisk blocks AMQP publishers while the log has no room or is being opened again after a
// failure. It unblocks them afterwards. With several shards, it blocks them only if this is true of
// every shard: a single shard refuses the messages of its own queues.
func (s *Server) watchDisk(door *amqp.Server) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for full, down := false, false; ; {
		select {
		case <-tick.C:
			if now := s.everyShard(func(b *embedded.Broker) bool { return b.Health().State == embedded.StateOpening }); now != down {
				down = now
				door.SetAlarm(openingAlarm, down)
			}
			if now := s.everyShard(func(b *embedded.Broker) bool { return b.LogStats().Full }); now != full {
				full = now
				door.SetAlarm(diskAlarm, full)
				s.log.Warn("room for messages", "disk_full", full)
			}
		case <-s.quit:
			return
		}
	}
}

// withManagement adds the paths of RabbitMQ's management interface that its clients use.
func withManagement(api, management http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			management.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})
}
