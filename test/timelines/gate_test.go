package timelines

import (
	"context"
	"sync/atomic"

	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/sinktest"
)

// gate simulates all connections between one process and the database. After sever the process
// reaches nothing. After cut every existing connection is lost.
type gate struct {
	faults *sinktest.Faults
	dead   atomic.Bool
	cuts   atomic.Int64 // number of cuts; connections from before the newest cut are lost
}

func (g *gate) sever() { g.dead.Store(true) }
func (g *gate) cut()   { g.cuts.Add(1) }

func lost() error {
	return &sink.Error{Class: sink.Down, Row: -1, Reason: "the connection is lost"}
}

func (g *gate) wrap(t sink.Target) sink.Target { return &gatedTarget{t, g} }

type gatedTarget struct {
	sink.Target
	g *gate
}

func (t *gatedTarget) Open(ctx context.Context, c sink.Claim) (sink.State, []sink.Lane, error) {
	if t.g.dead.Load() {
		return sink.State{}, nil, lost()
	}
	made := t.g.cuts.Load()
	state, lanes, err := t.Target.Open(ctx, c)
	for i := range lanes {
		lanes[i] = &gatedLane{lanes[i], t.g, made}
	}
	return state, lanes, err
}

type gatedLane struct {
	sink.Lane
	g    *gate
	made int64
}

// reach returns an error if the connection no longer leads to the database.
func (l *gatedLane) reach() error {
	if l.g.dead.Load() || l.g.cuts.Load() != l.made {
		return lost()
	}
	return nil
}

func (l *gatedLane) Fresh(ctx context.Context) (bool, error) {
	if err := l.reach(); err != nil {
		return false, err
	}
	return l.Lane.Fresh(ctx)
}

func (l *gatedLane) Commit(ctx context.Context, p sink.Progress) error {
	if err := l.reach(); err != nil {
		return err
	}
	err := l.Lane.Commit(ctx, p)
	if gone := l.reach(); gone != nil {
		return gone // the answer is lost, after a successful commit or not
	}
	return err
}

func (l *gatedLane) Begin(ctx context.Context) error {
	if err := l.reach(); err != nil {
		return err
	}
	return l.Lane.Begin(ctx)
}

func (l *gatedLane) Write(ctx context.Context, from, to int) error {
	if err := l.reach(); err != nil {
		return err
	}
	return l.Lane.Write(ctx, from, to)
}

func (l *gatedLane) Finish(ctx context.Context, p sink.Progress) error {
	if err := l.reach(); err != nil {
		return err
	}
	return l.Lane.Finish(ctx, p)
}
