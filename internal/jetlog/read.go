package jetlog

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/surgetank/surgetank/internal/jetlog/fenced"
)

const (
	// batchBytes and batchRecords limit the answer to one request.
	batchBytes   = 8 << 20
	batchRecords = 128
	// otherSources is how many other servers are asked in turn for records that are damaged or
	// missing.
	otherSources = 3
)

// Sources of Read: the server of the connection answers if it has a replica. The others are asked
// through connections of their own, because a server prefers its own replica.
const (
	nearest = iota
	leader
	otherServers
)

// Sources returns the number of ways to read.
func (s *Stream) Sources() int { return otherServers + otherSources }

// Read reads records.
func (s *Stream) Read(ctx context.Context, source int, from, to uint64) ([]fenced.Stored, error) {
	if source == leader {
		data, err := s.fromLeader(ctx, logStream(s.id), map[string]any{"seq": from})
		return []fenced.Stored{{At: from, Data: data}}, err
	}
	nc, err := s.conn(source)
	if err != nil {
		return nil, err
	}
	return s.direct(ctx, nc, from, min(to-from+1, batchRecords))
}

// conn returns the connection for a source.
func (s *Stream) conn(source int) (*nats.Conn, error) {
	if source < otherServers {
		return s.nc, nil
	}
	return s.others.get(source - otherServers)
}

// direct reads consecutive records from a replica.
func (s *Stream) direct(ctx context.Context, nc *nats.Conn, from, n uint64) ([]fenced.Stored, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	sub, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails only if the connection is closed
	request, err := json.Marshal(map[string]any{"seq": from, "batch": n, "max_bytes": batchBytes})
	if err != nil {
		return nil, err
	}
	if err := nc.PublishRequest("$JS.API.DIRECT.GET."+logStream(s.id), sub.Subject, request); err != nil {
		return nil, err
	}
	var out []fenced.Stored
	for uint64(len(out)) < n {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			if len(out) > 0 {
				return out, nil
			}
			return nil, err
		}
		switch status := m.Header.Get("Status"); {
		case status == "204" || status == "404":
			if len(out) == 0 {
				return nil, fenced.ErrMissing
			}
			return out, nil
		case status != "":
			return nil, statusError(m)
		}
		at, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
		if err != nil {
			return nil, errors.New("an answer of NATS has no sequence")
		}
		out = append(out, fenced.Stored{At: at, Data: m.Data})
	}
	return out, nil
}

// fromLeader reads one message from a stream's leader.
func (s *Stream) fromLeader(ctx context.Context, stream string, request map[string]any) ([]byte, error) {
	var r struct {
		Error   *apiError `json:"error"`
		Message struct {
			Data []byte `json:"data"`
		} `json:"message"`
	}
	if err := s.ask(ctx, "STREAM.MSG.GET."+stream, request, &r); err != nil {
		return nil, err
	}
	if r.Error != nil {
		return nil, r.Error.asStream()
	}
	return r.Message.Data, nil
}

// info returns a stream's state, as its leader knows it.
func (s *Stream) info(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	var r struct {
		Error *apiError `json:"error"`
		jetstream.StreamInfo
	}
	if err := s.ask(ctx, "STREAM.INFO."+stream, struct{}{}, &r); err != nil {
		return nil, err
	}
	if r.Error != nil {
		return nil, r.Error.asStream()
	}
	return &r.StreamInfo, nil
}

// others are connections to single servers. They are made when they are needed.
type others struct {
	nc *nats.Conn

	mu    sync.Mutex
	conns map[string]*nats.Conn
	ended bool
}

// get returns a connection to the i-th known server.
func (o *others) get(i int) (*nats.Conn, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	servers := o.nc.Servers()
	if o.ended || len(servers) == 0 {
		return nil, nats.ErrConnectionClosed
	}
	address := servers[i%len(servers)]
	if nc := o.conns[address]; nc != nil && nc.IsConnected() {
		return nc, nil
	} else if nc != nil {
		nc.Close()
	}
	opts := o.nc.Opts
	if u := userOf(opts.Servers); u != nil && opts.User == "" && opts.Token == "" {
		if password, ok := u.Password(); ok {
			opts.User, opts.Password = u.Username(), password
		} else {
			opts.Token = u.Username()
		}
	}
	opts.Url, opts.Servers, opts.AllowReconnect, opts.IgnoreDiscoveredServers, opts.RetryOnFailedConnect = address, nil, false, true, false
	opts.Timeout = timeout
	nc, err := opts.Connect()
	if err != nil {
		return nil, err
	}
	if o.conns == nil {
		o.conns = map[string]*nats.Conn{}
	}
	o.conns[address] = nc
	return nc, nil
}

// userOf returns the user in the first address that has one. The client's list of servers has no
// users.
func userOf(addresses []string) *url.Userinfo {
	for _, a := range addresses {
		if u, err := url.Parse(a); err == nil && u.User != nil {
			return u.User
		}
	}
	return nil
}

func (o *others) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	for _, nc := range o.conns { // unordered: all are closed
		nc.Close()
	}
}
