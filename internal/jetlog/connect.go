package jetlog

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/surgetank/surgetank"
)

// Connect connects to NATS with the options that a log needs. A connection that is lost is made
// again, without a limit. Messages that were not sent before are not sent then, because their
// conditions are old. more are options such as credentials.
func Connect(url string, more ...nats.Option) (*nats.Conn, error) {
	opts := append([]nats.Option{
		nats.Name("surgetank"),
		nats.PingInterval(2 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(50*time.Millisecond, 200*time.Millisecond),
	}, more...)
	opts = append(opts, nats.MaxReconnects(-1), nats.ReconnectBufSize(-1))
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		return nil, surgetank.Errorf(surgetank.CodeUnavailable, "connecting to NATS at %s failed: %w; check the address and the credentials", url, err)
	}
	return nc, nil
}

// checkConn refuses connections that were not made with the options of Connect.
func checkConn(nc *nats.Conn) error {
	switch {
	case nc == nil:
		return surgetank.FieldErrorf("conn", "a log needs a connection to NATS")
	case nc.Opts.ReconnectBufSize != -1 || nc.Opts.MaxReconnect != -1:
		return surgetank.FieldErrorf("conn", "the connection to NATS keeps messages while it is lost, or does not reconnect for ever; make it with jetlog.Connect")
	case !nc.HeadersSupported():
		return surgetank.FieldErrorf("conn", "the NATS server %s has no headers", nc.ConnectedUrlRedacted())
	}
	return nil
}

// statusError returns the error in an answer that is a status, or nil.
func statusError(m *nats.Msg) error {
	if status := m.Header.Get("Status"); status != "" {
		if status == "503" {
			return nats.ErrNoResponders
		}
		return fmt.Errorf("the NATS server answered %s %s", status, m.Header.Get("Description"))
	}
	return nil
}
