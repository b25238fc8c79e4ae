package jetlog

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/surgetank/surgetank"
)

// minVersion is the first version of NATS that syncs once for several appends of a replicated
// stream.
const minMajor, minMinor = 2, 15

// serverReport is an answer to $SYS.REQ.SERVER.PING.JSZ.
type serverReport struct {
	Server struct {
		Name    string `json:"name"`
		Version string `json:"ver"`
	} `json:"server"`
	Data struct {
		Disabled bool `json:"disabled"`
		Config   struct {
			SyncAlways bool `json:"sync_always"`
		} `json:"config"`
	} `json:"data"`
}

// checkServers asks the servers with replicas for their settings. system is a connection of the
// system account. A server that is down now does not answer, and a majority must.
func checkServers(ctx context.Context, system *nats.Conn, names []string, wait time.Duration) error {
	sub, err := system.SubscribeSync(system.NewInbox())
	if err != nil {
		return surgetank.Errorf(surgetank.CodeUnavailable, "asking the NATS servers for their settings failed: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails only if the connection is closed
	if err := system.PublishRequest("$SYS.REQ.SERVER.PING.JSZ", sub.Subject, []byte(`{"config":true}`)); err != nil {
		return surgetank.Errorf(surgetank.CodeUnavailable, "asking the NATS servers for their settings failed: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	heard := map[string]bool{}
	var bad []string
	for len(heard) < len(names) {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			break
		}
		if err := statusError(m); err != nil {
			return surgetank.Errorf(surgetank.CodeInvalid, "the NATS servers do not tell their settings (%w); the connection for this question must be one of the system account", err)
		}
		var r serverReport
		if err := json.Unmarshal(m.Data, &r); err != nil {
			return surgetank.Errorf(surgetank.CodeInternal, "a NATS server's answer cannot be understood: %w", err)
		}
		if !slices.Contains(names, r.Server.Name) || heard[r.Server.Name] {
			continue
		}
		heard[r.Server.Name] = true
		if !r.Data.Config.SyncAlways {
			bad = append(bad, fmt.Sprintf("server %s does not sync always; set sync_interval: always in its jetstream section", r.Server.Name))
		}
		var major, minor int
		if _, err := fmt.Sscanf(r.Server.Version, "%d.%d", &major, &minor); err != nil || major < minMajor || major == minMajor && minor < minMinor {
			bad = append(bad, fmt.Sprintf("server %s has version %s; %d.%d or later is needed", r.Server.Name, r.Server.Version, minMajor, minMinor))
		}
	}
	if len(bad) > 0 {
		slices.Sort(bad)
		return surgetank.Errorf(surgetank.CodeInvalid, "confirmed messages could be lost with these NATS servers: %s; nothing was changed", strings.Join(bad, "; "))
	}
	if len(heard)*2 <= len(names) {
		return surgetank.Errorf(surgetank.CodeUnavailable, "only %d of the %d NATS servers with replicas (%s) told their settings", len(heard), len(names), strings.Join(names, ", "))
	}
	return nil
}
