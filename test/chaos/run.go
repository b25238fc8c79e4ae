package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/surgetank/surgetank/internal/pgtest"
	"github.com/surgetank/surgetank/test/build"
	"github.com/surgetank/surgetank/test/kit/client"
	"github.com/surgetank/surgetank/test/kit/load"
	"github.com/surgetank/surgetank/test/kit/server"
)

// options are the program's flags.
type options struct {
	input    string
	messages int
	kills    int // number of kills of each of the two processes
	lanes    int
	seed     uint64
	binary   string // the surgetank program; empty: built from this module
	keep     bool
	say      func(format string, args ...any)
}

// summary is the result of a run.
type summary struct {
	Seed              uint64
	Messages          int
	Bytes             int64
	Groups            int
	Rows              int64
	Lost              int64
	Doubled           int64
	Damaged           int64 // rows whose bytes differ from those of their lines
	OutOfOrder        int64
	Parked            int64
	KilledServer      int
	KilledPostgres    int
	SentAgain         int64 // batches that publish sent again because their outcome was unknown or the server refused them
	Publish, Complete time.Duration
}

func (s summary) ok() bool {
	return s.Rows == int64(s.Messages) && s.Lost == 0 && s.Doubled == 0 && s.Damaged == 0 && s.OutOfOrder == 0 && s.Parked == 0
}

func (s summary) String() string {
	verdict := "ok"
	if !s.ok() {
		verdict = "FAILED"
	}
	return fmt.Sprintf("chaos %s: seed %d, published %d (%.0f MB, %d groups), rows %d, lost %d, doubled %d, damaged %d, out of order %d, parked %d; kill -9: surgetank %d, postgres %d; batches sent again %d; published in %.1f s, all applied after %.1f s",
		verdict, s.Seed, s.Messages, float64(s.Bytes)/1e6, s.Groups, s.Rows, s.Lost, s.Doubled, s.Damaged, s.OutOfOrder, s.Parked,
		s.KilledServer, s.KilledPostgres, s.SentAgain, s.Publish.Seconds(), s.Complete.Seconds())
}

// world is the running processes and their input.
type world struct {
	options
	dir    string
	pg     *pgtest.Server
	server *server.Server
	sum    summary
}

const schema = `CREATE TABLE events (
	applied bigserial, -- the order in which rows were written
	n bigint, grp text, event text, body text)`

const configuration = `queues:
  events:
    group_by: %s
    group: {max_in_flight: 1}
    dedup: {window: 2h}
sinks:
  events-to-db:
    queue: events
    postgres:
      dsn: %s
      table: events
      columns: {n: $.n, grp: message.group, event: $.event, body: body}
    lanes: %d
`

// run runs the whole test. The summary is valid even if a promise was broken. The error says why
// the test could not finish.
func run(ctx context.Context, o options) (_ summary, err error) {
	dir, err := os.MkdirTemp("", "surgetank-chaos-")
	if err != nil {
		return summary{}, err
	}
	w := &world{options: o, dir: dir, sum: summary{Seed: o.seed, Messages: o.messages}}
	if o.keep {
		o.say("everything stays in %s", dir)
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	defer w.end()
	want, err := w.prepare(ctx)
	if err != nil {
		return w.sum, err
	}
	if err := w.storm(ctx); err != nil {
		return w.sum, fmt.Errorf("%w\nlast words of the server:\n%s", err, w.server.Tail(4000))
	}
	if err := w.verify(ctx, want); err != nil {
		return w.sum, fmt.Errorf("reading the table back: %w", err)
	}
	stop, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return w.sum, w.server.Stop(stop)
}

// end ends all processes, even after a failed prepare.
func (w *world) end() {
	if w.server != nil {
		w.server.Kill()
	}
	if w.pg != nil {
		w.pg.Close()
	}
}

// prepare writes the input, builds the program, and starts the database and the server.
func (w *world) prepare(ctx context.Context) (*expected, error) {
	base := madeUpLines()
	if w.input != "" {
		var err error
		if base, err = readLines(w.input); err != nil {
			return nil, err
		}
	}
	want, err := writeInput(filepath.Join(w.dir, "input.ndjson"), base, w.messages)
	if err != nil {
		return nil, err
	}
	w.sum.Bytes, w.sum.Groups = want.bytes, len(want.names)
	if w.binary == "" {
		if w.binary, err = build.Server(ctx, w.dir, "surgetank", "", nil); err != nil {
			return nil, err
		}
	}
	bin, err := pgtest.Find()
	if err != nil {
		return nil, err
	}
	if w.pg, err = pgtest.New(bin); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, w.pg.DSN("postgres"))
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, schema); err != nil {
		return nil, err
	}
	w.server = &server.Server{Binary: w.binary, Data: filepath.Join(w.dir, "data"), Log: filepath.Join(w.dir, "server.log")}
	if err := w.server.Start(ctx); err != nil {
		return nil, err
	}
	file := filepath.Join(w.dir, "surgetank.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, groupPath, w.pg.DSN("postgres"), w.lanes), 0o600); err != nil {
		return nil, err
	}
	_, err = w.server.Command(ctx, "apply", "-f", file)
	return want, err
}

// storm publishes, kills processes, and waits until the queue is empty.
func (w *world) storm(ctx context.Context) error {
	start := time.Now()
	published := make(chan error, 1)
	go func() {
		out, err := w.server.Command(ctx, "publish", "events", filepath.Join(w.dir, "input.ndjson"), "--json", "--run", "chaos", "--give-up", "3m")
		var report struct {
			Confirmed int64 `json:"confirmed"`
			Retries   int64 `json:"retries"`
		}
		if err == nil {
			err = json.Unmarshal(out, &report)
		}
		if err == nil && report.Confirmed != int64(w.messages) {
			err = fmt.Errorf("publish ended well with %d of %d lines confirmed", report.Confirmed, w.messages)
		}
		w.sum.SentAgain, w.sum.Publish = report.Retries, time.Since(start)
		published <- err
	}()
	if err := w.killing(ctx, published); err != nil {
		return err
	}
	select {
	case err := <-published:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := w.drained(ctx); err != nil {
		return err
	}
	w.sum.Complete = time.Since(start)
	return nil
}

// killing kills the server and the database alternately. Each kill happens a random time after the
// number of rows passes the next mark.
func (w *world) killing(ctx context.Context, published chan error) error {
	rng := rand.New(rand.NewPCG(w.seed, 1))
	marks := make([]int64, 2*w.kills)
	for i := range marks {
		marks[i] = rng.Int64N(int64(w.messages) * 95 / 100)
	}
	slices.Sort(marks)
	for i, mark := range marks {
		for {
			rows, err := w.progress(ctx)
			if err != nil {
				return err
			}
			if rows >= mark {
				break
			}
			select {
			case err := <-published: // publish may end early, but not with an error
				if err != nil {
					return err
				}
				published <- nil
				if err := load.Pause(ctx, 50*time.Millisecond); err != nil {
					return err
				}
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := load.Pause(ctx, time.Duration(rng.Int64N(int64(300*time.Millisecond)))); err != nil {
			return err
		}
		down := time.Duration(rng.Int64N(int64(time.Second)))
		if i%2 == 0 {
			w.say("kill -9 surgetank after %d rows, down for %v", mark, down.Round(time.Millisecond))
			w.server.Kill()
			w.sum.KilledServer++
			if err := load.Pause(ctx, down); err != nil {
				return err
			}
			if err := w.server.Start(ctx); err != nil {
				return fmt.Errorf("starting surgetank after kill %d: %w", w.sum.KilledServer, err)
			}
			continue
		}
		w.say("kill -9 postgres after %d rows, down for %v", mark, down.Round(time.Millisecond))
		if err := w.pg.Kill(); err != nil {
			return err
		}
		w.sum.KilledPostgres++
		if err := load.Pause(ctx, down); err != nil {
			return err
		}
		if err := w.pg.Start(); err != nil {
			return fmt.Errorf("starting PostgreSQL after kill %d: %w", w.sum.KilledPostgres, err)
		}
	}
	return nil
}

// progress returns the approximate number of written rows.
func (w *world) progress(ctx context.Context) (rows int64, err error) {
	conn, err := pgx.Connect(ctx, w.pg.DSN("postgres"))
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SELECT last_value FROM events_applied_seq").Scan(&rows)
	return rows, err
}

// drained waits until the queue is empty.
func (w *world) drained(ctx context.Context) error {
	for {
		out, err := w.server.Command(ctx, "queue", "show", "events", "--json")
		if err != nil {
			return err
		}
		var q client.Queue
		if err := json.Unmarshal(out, &q); err != nil || q.Messages() == 0 {
			return err
		}
		if err := load.Pause(ctx, 500*time.Millisecond); err != nil {
			return fmt.Errorf("the queue still holds messages: %s: %w", out, err)
		}
	}
}
