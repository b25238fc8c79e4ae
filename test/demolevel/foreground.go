package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/surgetank/surgetank/test/kit/load"
)

const (
	accounts       = 100_000
	foregroundSize = 20              // number of connections
	connectWait    = 2 * time.Second // limit for one connection
	waitingMax     = 1 << 16         // foreground transactions that can wait for a connection
)

const foregroundSchema = `
	CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL, filler text NOT NULL);
	INSERT INTO accounts SELECT id, 0, repeat('x', 80) FROM generate_series(1, 100000) id;
	CREATE TABLE history (account int NOT NULL, amount int NOT NULL, at timestamptz NOT NULL DEFAULT now());
	ANALYZE accounts;`

// sample is one transaction of the foreground.
type sample struct {
	at     time.Duration // its intended start, on the run's clock
	took   time.Duration // from the intended start to the commit
	failed bool
}

// foreground is an open loop: transactions arrive at random moments, whether or not earlier
// transactions have ended. A latency begins at the intended start, so it includes the wait for a
// connection. Its methods are safe for use by many goroutines.
type foreground struct {
	dsn   string
	rate  float64 // transactions a second
	start time.Time
	due   chan time.Duration

	mu      sync.Mutex
	samples []sample
}

// run runs the load until ctx ends. It returns after the last transaction.
func (f *foreground) run(ctx context.Context) {
	f.due = make(chan time.Duration, waitingMax)
	var users sync.WaitGroup
	for i := range foregroundSize {
		users.Go(func() { f.user(ctx, uint64(i)) })
	}
	f.arrivals(ctx)
	users.Wait()
}

// arrivals produces the intended starts, with the random gaps of independent users.
func (f *foreground) arrivals(ctx context.Context) {
	defer close(f.due)
	rng := rand.New(rand.NewPCG(1, 2))
	at := time.Since(f.start)
	for {
		at += time.Duration(rng.ExpFloat64() / f.rate * float64(time.Second))
		if load.Pause(ctx, at-time.Since(f.start)) != nil {
			return
		}
		select {
		case f.due <- at:
		default: // the line is full, so the transaction fails at once
			f.record(sample{at: at, took: time.Since(f.start) - at, failed: true})
		}
	}
}

// user runs transactions on a connection of its own, one after the other.
func (f *foreground) user(ctx context.Context, number uint64) {
	rng := rand.New(rand.NewPCG(3, number))
	var conn *pgx.Conn
	defer func() { closeConn(conn) }()
	for at := range f.due {
		if ctx.Err() != nil {
			continue // the measurement is over
		}
		var err error
		if conn, err = f.transaction(ctx, conn, 1+rng.IntN(accounts), rng.IntN(1000)); ctx.Err() == nil {
			f.record(sample{at, time.Since(f.start) - at, err != nil})
		}
	}
}

// transaction books an amount. It returns the connection for the next transaction, or nil.
func (f *foreground) transaction(ctx context.Context, conn *pgx.Conn, account, amount int) (*pgx.Conn, error) {
	if conn == nil {
		var err error
		if conn, err = connect(ctx, f.dsn); err != nil {
			return nil, err
		}
	}
	var b pgx.Batch
	b.Queue("UPDATE accounts SET balance = balance + $2 WHERE id = $1", account, amount)
	b.Queue("SELECT balance FROM accounts WHERE id = $1", account)
	b.Queue("INSERT INTO history (account, amount) VALUES ($1, $2)", account, amount)
	if err := conn.SendBatch(ctx, &b).Close(); err != nil {
		closeConn(conn)
		return nil, err
	}
	return conn, nil
}

func (f *foreground) record(s sample) {
	f.mu.Lock()
	f.samples = append(f.samples, s)
	f.mu.Unlock()
}

// between returns the present figures of the transactions whose intended start is in [from, to).
func (f *foreground) between(from, to time.Duration) latency {
	f.mu.Lock()
	defer f.mu.Unlock()
	return latencyOf(f.samples, from, to)
}

// during returns the samples whose intended start is in [from, to).
func during(samples []sample, from, to time.Duration) []sample {
	return slices.DeleteFunc(slices.Clone(samples), func(s sample) bool { return s.at < from || s.at >= to })
}

// latency is the figures of a part of the foreground load.
type latency struct {
	Count, Failed int
	P50, P99, Max time.Duration // latencies of the transactions that did not fail
}

func latencyOf(samples []sample, from, to time.Duration) latency {
	var l latency
	var took []time.Duration
	for _, s := range samples {
		switch {
		case s.at < from || s.at >= to:
		case s.failed:
			l.Failed++
		default:
			took = append(took, s.took)
		}
	}
	if l.Count = len(took) + l.Failed; len(took) == 0 {
		return l
	}
	slices.Sort(took)
	rank := func(share float64) time.Duration { return took[min(len(took)-1, int(share*float64(len(took))))] }
	l.P50, l.P99, l.Max = rank(.5), rank(.99), took[len(took)-1]
	return l
}

// available reports whether at least half of the transactions succeeded within a second.
func (l latency) available() bool {
	return l.Count == 0 || 2*l.Failed <= l.Count && l.P50 <= time.Second
}

// connect opens a connection, and fails after connectWait.
func connect(ctx context.Context, dsn string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	return conn, nil
}

// closeConn closes a connection, which can be nil. It does not wait long for a dead server.
func closeConn(conn *pgx.Conn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // the server ends the session in any case
}
