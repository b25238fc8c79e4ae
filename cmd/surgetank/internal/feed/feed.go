// Package feed publishes lines. Every line of an input is one message, in order, through restarts
// of the server, and without storing a line twice. `surgetank publish` is this package with flags;
// the demo and the chaos test use it too.
//
// # Order
//
// Lines are divided among lanes. A lane sends one batch at a time. It sends the next batch only
// when the previous one is confirmed, so a repeated batch can never be stored after a later one.
// Lines of one group share a lane; lines without a group share the first. So a queue with groups
// has several batches in flight and keeps the order inside each group. A queue without groups has
// one batch in flight and keeps the order of all lines.
//
// # Once
//
// Each lane is a publisher: it has a random id and numbers its lines. If the outcome of a batch is
// unknown, because the connection broke or the server was killed, the batch is sent again with the
// same numbers until it is confirmed. On every queue the server detects stored lines as duplicates.
// If the server no longer knows the lane's id, Publish stops with an error.
//
// If the queue has a dedup window, line n of run r also has the dedup id "r:n". A later run of the
// same name then stores only the missing lines. Package input can divide a file into other messages
// than lines. All statements about lines apply to these messages, too. Options.Format keeps the
// dedup ids of different formats apart.
package feed

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
)

// Defaults of Options.
const (
	DefaultBatchLines = 1000
	DefaultBatchBytes = 1 << 20
	DefaultLanes      = 4
	DefaultGiveUp     = 5 * time.Minute
	maxBufferedBytes  = 32 << 20 // bytes that are read and not yet confirmed, in all lanes
)

// Options describe the destination of lines and how to send them. Queue and Run are required.
type Options struct {
	Queue string
	// Run names this input. Together with a line's number it is the line's dedup id. Publishing the
	// same input under the same name again stores only the missing lines.
	Run string
	// Group returns a line's group, which decides its lane; nil: no groups. With SetGroup the
	// message gets the group, too.
	Group    func(body []byte) string
	SetGroup bool
	// Format, if not empty, is part of the dedup ids. So the messages of the same input in another
	// format have other dedup ids. ContentType is the type of each message.
	Format, ContentType string
	// NumberHeader, if not empty, is the name of a header with each line's number.
	NumberHeader string
	// Window is the queue's dedup window; 0: no window.
	Window time.Duration
	// Repeat allows sending lines again that the server may have stored, even if it cannot detect
	// the duplicate.
	Repeat bool

	Lanes      int           // batches in flight; 0: DefaultLanes, or 1 without Group
	BatchLines int           // 0: DefaultBatchLines
	BatchBytes int           // 0: DefaultBatchBytes; a longer line is sent alone
	GiveUp     time.Duration // time without any progress until Publish gives up; 0: DefaultGiveUp
	Rate       float64       // lines a second; 0: as fast as they are confirmed
	// Note receives a text when the server stops and starts answering. Several goroutines may call
	// it.
	Note func(string)
}

// Stats are live figures; read them with Snapshot while Publish runs.
type Stats struct {
	read, confirmed, duplicates, bytes, retries atomic.Int64
}

// Report is a reading of Stats.
type Report struct {
	Read       int64 `json:"read"`       // lines read from the input
	Confirmed  int64 `json:"confirmed"`  // lines known to be on disk, including duplicates
	Duplicates int64 `json:"duplicates"` // confirmed lines that an earlier run of the same name had stored
	Bytes      int64 `json:"bytes"`      // size of the confirmed lines
	Retries    int64 `json:"retries"`    // batches sent again
}

// Snapshot reads the figures.
func (s *Stats) Snapshot() Report {
	return Report{s.read.Load(), s.confirmed.Load(), s.duplicates.Load(), s.bytes.Load(), s.retries.Load()}
}

// LineError names the line that stopped a run.
type LineError struct {
	Line Line
	Err  error
}

func (e *LineError) Error() string {
	return fmt.Sprintf("%s was not stored: %v", e.Line.Where(), e.Err)
}

func (e *LineError) Unwrap() error { return e.Err }

// Publish sends every line of src. It returns when all are confirmed, or with the first error that
// retrying cannot fix. When ctx ends it stops reading and finishes the batches in flight. Lines
// that are not counted as confirmed can still be stored. If the queue has a dedup window, a later
// call with the same Run stores only the missing lines.
func Publish(ctx context.Context, b surgetank.Broker, src Source, o Options, stats *Stats) error {
	o = o.withDefaults()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := &publisher{Options: o, broker: b, stats: stats, budget: newBudget(maxBufferedBytes)}
	p.progress.Store(time.Now().UnixNano())

	var wg sync.WaitGroup
	lanes := make([]chan Line, o.Lanes)
	for i := range lanes {
		lanes[i] = make(chan Line, 2*o.BatchLines)
		wg.Go(func() {
			if err := p.lane(ctx, lanes[i]); err != nil {
				cancel(err)
			}
		})
	}
	// The reader has a goroutine of its own. If ctx ends while the reader waits for a line that may
	// never come, as from a terminal, the goroutine is abandoned.
	readErr := make(chan error, 1)
	go func() {
		err := p.read(ctx, src, lanes)
		for _, c := range lanes {
			close(c)
		}
		readErr <- err
	}()
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return <-readErr
}

func (o Options) withDefaults() Options {
	if o.Lanes <= 0 {
		o.Lanes = DefaultLanes
	}
	if o.Group == nil {
		o.Lanes = 1
	}
	if o.BatchLines <= 0 {
		o.BatchLines = DefaultBatchLines
	}
	if o.BatchBytes <= 0 {
		o.BatchBytes = DefaultBatchBytes
	}
	if o.GiveUp <= 0 {
		o.GiveUp = DefaultGiveUp
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	return o
}

type publisher struct {
	Options
	broker   surgetank.Broker
	stats    *Stats
	budget   *budget
	progress atomic.Int64 // time of the last confirmed batch, in Unix nanoseconds
	down     atomic.Bool  // the server did not answer the last attempt
}

// read assigns lines to lanes until the input ends.
func (p *publisher) read(ctx context.Context, src Source, lanes []chan Line) error {
	start, n := time.Now(), 0
	for {
		if p.Rate > 0 {
			due := start.Add(time.Duration(float64(n) / p.Rate * float64(time.Second)))
			if !sleep(ctx, time.Until(due)) {
				return nil
			}
		}
		l, ok, err := src.Next()
		if err != nil || !ok {
			return err
		}
		n++
		p.stats.read.Add(1)
		lane := lanes[0]
		if p.Group != nil {
			l.group = p.Group(l.Body)
			if l.group != "" {
				h := fnv.New32a()
				h.Write([]byte(l.group))
				lane = lanes[h.Sum32()%uint32(len(lanes))]
			}
		}
		if !p.budget.take(ctx, len(l.Body)) {
			return nil
		}
		select {
		case lane <- l:
		case <-ctx.Done():
			return nil
		}
	}
}

// lane sends its lines, one batch at a time. A batch is the lines that gathered while the previous
// batch was in flight.
func (p *publisher) lane(ctx context.Context, lines <-chan Line) error {
	var batch []Line
	var held *Line // a line that did not fit into the last batch
	from := sender{id: rand.Text()}
	for {
		batch = batch[:0]
		size := 0
		if held != nil {
			batch, size, held = append(batch, *held), len(held.Body), nil
		} else {
			select {
			case l, ok := <-lines:
				if !ok {
					return nil
				}
				batch, size = append(batch, l), len(l.Body)
			case <-ctx.Done():
				return nil
			}
		}
	fill:
		for len(batch) < p.BatchLines && size < p.BatchBytes {
			select {
			case l, ok := <-lines:
				if !ok {
					break fill
				}
				if size+len(l.Body) > p.BatchBytes {
					held = &l
					break fill
				}
				batch, size = append(batch, l), size+len(l.Body)
			default:
				break fill
			}
		}
		if err := p.send(ctx, &from, batch); err != nil {
			return err
		}
		p.budget.free(size)
	}
}

// attemptTimeout is how long one attempt may take. After it the outcome is unknown.
const attemptTimeout = 60 * time.Second

// sender is a lane's identity as a publisher, and the number of its last line.
type sender struct {
	id   string
	last uint64
}

// numbers returns numbers for the next n lines.
func (s *sender) numbers(n int) []uint64 {
	list := make([]uint64, n)
	for i := range list {
		s.last++
		list[i] = s.last
	}
	return list
}

// forgotten reports whether the server no longer knows a publisher. Then it refused a line that it
// may have stored before.
func forgotten(err error) bool {
	var e *surgetank.Error
	return errors.As(err, &e) && e.Code == surgetank.CodeUncertain && e.Field == surgetank.FieldPublisher
}

// send publishes one batch and returns when all of it is confirmed. It finishes the current attempt
// even if ctx ends.
func (p *publisher) send(ctx context.Context, from *sender, batch []Line) error {
	first, pause := time.Now(), 50*time.Millisecond
	unsure := false // part of the batch may be stored although no answer said so
	numbers := from.numbers(len(batch))
	for {
		try, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
		results, err := p.broker.Publish(try, p.publishings(from, batch, numbers))
		cancel()
		if err == nil && len(results) != len(batch) {
			return surgetank.Errorf(surgetank.CodeInternal, "the server answered %d of %d lines; report this", len(results), len(batch))
		}
		rest, restNumbers, nowUnsure, unknown := batch[:0:0], numbers[:0:0], unsure, error(nil)
		for i := range batch {
			lineErr := err
			if err == nil {
				lineErr = results[i].Err
			}
			switch {
			case lineErr == nil:
				p.confirm(batch[i], results[i].Duplicate && !unsure && p.Window > 0)
			case !mayHelpToRepeat(lineErr):
				return &LineError{batch[i], lineErr}
			default:
				rest, restNumbers = append(rest, batch[i]), append(restNumbers, numbers[i])
				if forgotten(lineErr) {
					unknown = lineErr
				} else {
					nowUnsure = nowUnsure || surgetank.CodeOf(lineErr) == surgetank.CodeUncertain
				}
			}
		}
		if len(rest) == 0 {
			if p.down.CompareAndSwap(true, false) {
				p.Note("the server answers again; going on")
			}
			return nil
		}
		why := err
		if why == nil {
			why = firstError(results)
		}
		if unknown != nil {
			if err := p.mayRenumber(first, unsure, rest[0], unknown); err != nil {
				return err
			}
			*from = sender{id: rand.Text()}
			restNumbers = from.numbers(len(rest))
		}
		unsure = nowUnsure
		if quiet := time.Since(time.Unix(0, p.progress.Load())); quiet > p.GiveUp {
			return &LineError{rest[0], fmt.Errorf("nothing was confirmed for %v: %w", quiet.Round(time.Second), why)}
		}
		if p.down.CompareAndSwap(false, true) {
			p.Note(fmt.Sprintf("%v; trying again", why))
		}
		wait := pause
		if e := (*surgetank.Error)(nil); errors.As(why, &e) && e.RetryAfter > 0 {
			wait = min(e.RetryAfter, 10*time.Second)
		}
		if !sleep(ctx, wait) {
			return &LineError{rest[0], fmt.Errorf("stopped before it was confirmed: %w", why)}
		}
		pause = min(2*pause, 2*time.Second)
		p.stats.retries.Add(1)
		batch, numbers = rest, restNumbers
	}
}

// mayRenumber decides whether lines of a publisher that the server no longer knows may be sent with
// a new publisher id. unsure: an earlier attempt may have stored some of them.
func (p *publisher) mayRenumber(first time.Time, unsure bool, l Line, why error) error {
	switch {
	case !unsure, p.Repeat, p.Window > 0 && time.Since(first) <= p.Window*9/10: // the window still has their dedup ids
		return nil
	case p.Window > 0:
		return &LineError{l, surgetank.Errorf(surgetank.CodeUncertain,
			"it may or may not be stored, and the dedup window of the queue %s (%v) is nearly over: sending it again could double it (%w)", p.Queue, p.Window, why)}
	}
	return &LineError{l, surgetank.Errorf(surgetank.CodeUncertain, "it may or may not be stored, and sending it again could double it: allow doubled lines, or look (%w)", why)}
}

func (p *publisher) confirm(l Line, duplicate bool) {
	p.progress.Store(time.Now().UnixNano())
	p.stats.confirmed.Add(1)
	p.stats.bytes.Add(int64(len(l.Body)))
	if duplicate {
		p.stats.duplicates.Add(1)
	}
}

func (p *publisher) publishings(from *sender, batch []Line, numbers []uint64) []surgetank.Publishing {
	queues := []string{p.Queue}
	msgs := make([]surgetank.Publishing, len(batch))
	for i, l := range batch {
		m := surgetank.Message{Body: l.Body, ContentType: p.ContentType}
		if p.Window > 0 {
			m.DedupID = p.Run + ":" + p.Format + strconv.FormatInt(l.N, 10)
		}
		if p.SetGroup {
			m.Group = l.group
		}
		if p.NumberHeader != "" {
			m.Headers = []surgetank.Header{{Name: p.NumberHeader, Value: strconv.FormatInt(l.N, 10)}}
		}
		msgs[i] = surgetank.Publishing{Queues: queues, Message: m, Publisher: from.id, Sequence: numbers[i]}
	}
	return msgs
}

// mayHelpToRepeat reports whether an error can pass by itself.
func mayHelpToRepeat(err error) bool {
	switch surgetank.CodeOf(err) {
	case surgetank.CodeBusy, surgetank.CodeFull, surgetank.CodeUnavailable, surgetank.CodeClosed, surgetank.CodeUncertain:
		return true
	}
	return false
}

func firstError(results []surgetank.PublishResult) error {
	for _, r := range results {
		if r.Err != nil {
			return r.Err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
