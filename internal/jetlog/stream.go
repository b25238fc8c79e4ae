package jetlog

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/jetlog/fenced"
)

const (
	// maxData is the largest message of a log. Larger ones gain little.
	maxData = 900 << 10
	// reserve is the part of the server's limit of a message that headers may need.
	reserve = 4 << 10
	// timeout is the time limit of a request.
	timeout = 2 * time.Second

	headerCondition = "Nats-Expected-Last-Sequence"
	advisory        = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED."
)

// Stream is one log's streams in JetStream. Many goroutines may call its methods.
type Stream struct {
	nc      *nats.Conn
	id      string
	clock   clock.Clock
	timeout time.Duration
	data    int
	inbox   string // answers come to <inbox>.<epoch>.<n>
	subs    []*nats.Subscription
	status  chan nats.Status
	ended   sync.WaitGroup
	others  others

	mu        sync.Mutex
	answer    func(fenced.Answer)
	disturbed func()
}

var _ fenced.Stream = (*Stream)(nil)

// newStream subscribes to answers and to news about the leader.
func newStream(nc *nats.Conn, id string, c clock.Clock) (*Stream, error) {
	s := &Stream{nc: nc, id: id, clock: c, timeout: timeout, data: min(maxData, int(nc.MaxPayload())-reserve) - fenced.Overhead,
		inbox: nc.NewInbox(), answer: func(fenced.Answer) {}, disturbed: func() {}}
	s.others.nc = nc
	for subject, handler := range map[string]nats.MsgHandler{ // unordered: the subscriptions are independent
		s.inbox + ".*.*":         s.answered,
		advisory + logStream(id): func(*nats.Msg) { s.disturb() },
	} {
		sub, err := nc.Subscribe(subject, handler)
		if err != nil {
			s.close()
			return nil, err
		}
		s.subs = append(s.subs, sub)
	}
	s.status = nc.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CONNECTED)
	s.ended.Add(1)
	go s.watch()
	return s, nil
}

// watch passes changes of the connection to the log.
func (s *Stream) watch() {
	defer s.ended.Done()
	for range s.status {
		s.disturb()
	}
}

// close ends the subscriptions. The connection stays open.
func (s *Stream) close() {
	for _, sub := range s.subs {
		_ = sub.Unsubscribe() // it fails only if the connection is closed
	}
	if s.status != nil {
		s.nc.RemoveStatusListener(s.status)
		s.ended.Wait()
	}
	s.others.close()
}

// Listen sets the receivers of answers and news.
func (s *Stream) Listen(answer func(fenced.Answer), disturbed func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer, s.disturbed = answer, disturbed
}

func (s *Stream) disturb() {
	s.mu.Lock()
	f := s.disturbed
	s.mu.Unlock()
	f()
}

// answered receives the answer to a Send.
func (s *Stream) answered(m *nats.Msg) {
	epoch, n, ok := s.parse(m.Subject)
	if !ok {
		return
	}
	at, err := readAppended(m)
	s.mu.Lock()
	f := s.answer
	s.mu.Unlock()
	f(fenced.Answer{Epoch: epoch, N: n, At: at, Err: err})
}

func (s *Stream) parse(subject string) (epoch, n uint64, ok bool) {
	first, second, ok := strings.Cut(strings.TrimPrefix(subject, s.inbox+"."), ".")
	if !ok {
		return 0, 0, false
	}
	epoch, err1 := strconv.ParseUint(first, 10, 64)
	n, err2 := strconv.ParseUint(second, 10, 64)
	return epoch, n, err1 == nil && err2 == nil
}

// message returns the message of an append.
func (s *Stream) message(after uint64, record []byte) *nats.Msg {
	m := &nats.Msg{Subject: logSubject(s.id), Data: record}
	if after != fenced.Any {
		m.Header = nats.Header{headerCondition: []string{strconv.FormatUint(after, 10)}}
	}
	return m
}

// Send appends a record without waiting. The client copies it.
func (s *Stream) Send(epoch, n, after uint64, record []byte) error {
	m := s.message(after, record)
	m.Reply = fmt.Sprintf("%s.%d.%d", s.inbox, epoch, n)
	return s.nc.PublishMsg(m)
}

// Append appends a record and waits for the answer.
func (s *Stream) Append(ctx context.Context, after uint64, record []byte) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	m, err := s.nc.RequestMsgWithContext(ctx, s.message(after, record))
	if err != nil {
		return 0, err
	}
	return readAppended(m)
}

// Bounds asks the leader.
func (s *Stream) Bounds(ctx context.Context) (fenced.Bounds, error) {
	info, err := s.info(ctx, logStream(s.id))
	if err != nil {
		return fenced.Bounds{}, err
	}
	b := fenced.Bounds{First: info.State.FirstSeq, Last: info.State.LastSeq, Bytes: int64(info.State.Bytes)}
	if info.State.Msgs == 0 {
		b.First = b.Last + 1
	}
	return b, nil
}

// Purge removes the records before a position.
func (s *Stream) Purge(ctx context.Context, before uint64) error {
	return s.purge(ctx, logStream(s.id), map[string]any{"seq": before})
}

func (s *Stream) purge(ctx context.Context, stream string, request map[string]any) error {
	var r struct {
		Error *apiError `json:"error"`
	}
	if err := s.ask(ctx, "STREAM.PURGE."+stream, request, &r); err != nil {
		return err
	}
	if r.Error != nil {
		return r.Error.asStream()
	}
	return nil
}

// MaxData returns the most bytes of data in a record.
func (s *Stream) MaxData() int { return s.data }

// Wait waits.
func (s *Stream) Wait(ctx context.Context, d time.Duration) {
	t := s.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
	case <-ctx.Done():
	}
}
