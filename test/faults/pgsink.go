//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/surgetank/surgetank/internal/pgtest"
)

// canPostgres returns an error if this machine cannot run a PostgreSQL for the campaign.
func canPostgres() error {
	_, err := pgtest.Find()
	return err
}

// onWire is a fault after a message between a sink and PostgreSQL.
type onWire struct {
	name string
	// strike causes the fault. It runs inside the proxy, which forwards nothing meanwhile.
	strike func(r *run, pg *pgtest.Server, p *wireProxy)
	// after undoes the fault.
	after func(ctx context.Context, r *run, pg *pgtest.Server, p *wireProxy) error
}

// wireFaults affect the network, the database and the server.
var wireFaults = []onWire{
	{"the connections are reset", func(_ *run, _ *pgtest.Server, p *wireProxy) { p.reset() }, nil},
	{"PostgreSQL is killed", func(_ *run, pg *pgtest.Server, p *wireProxy) { _ = pg.Kill() }, // an error does not matter: the server must end
		func(_ context.Context, _ *run, pg *pgtest.Server, p *wireProxy) error {
			p.cut()
			return pg.Start()
		}},
	{"the server is killed", func(r *run, _ *pgtest.Server, _ *wireProxy) { r.server.Kill() },
		func(ctx context.Context, r *run, _ *pgtest.Server, p *wireProxy) error {
			p.cut()
			return r.server.Start(ctx)
		}},
}

// postgresWalk walks through the messages between a sink and PostgreSQL. After the first, the
// second and each further message of a conversation, the connection is reset, or the database or
// the server is killed. At the end every confirmed message must be one row. Messages are counted
// from two points. One is the start of a session, which claims the target. The other is the middle
// of the work, where each transaction writes its rows, updates its progress and commits.
func postgresWalk(ctx context.Context, r *run) error {
	bin, err := pgtest.Find()
	if err != nil {
		return err
	}
	pg, err := pgtest.New(bin)
	if err != nil {
		return err
	}
	defer pg.Close()
	p, err := newWireProxy(pg.Addr)
	if err != nil {
		return err
	}
	defer p.close()
	r.beyond = true // no client consumes: the sinks' rows are checked instead of deliveries
	if err := r.server.Start(ctx); err != nil {
		return err
	}
	if err := r.declare(ctx); err != nil {
		return err
	}
	through := strings.Replace(pg.DSN("postgres"), pg.Addr(), p.address(), 1)
	c := r.client()
	c.Timeout = 20 * time.Second
	defer c.Close()
	for _, q := range []string{grouped, plain} {
		spec := fmt.Sprintf(`{"queue":%q,"postgres":{"dsn":%q,"table":%q,"columns":{"seq":"message.seq","v":"$.v"},"create_table":true},"batch":{"max":20,"wait":"2ms"},"lanes":1}`,
			q, through, "rows_"+q)
		if err := c.setSink(ctx, q+"-rows", spec); err != nil {
			return err
		}
	}
	r.startLoad(ctx, loadOptions{consumers: -1, amqp: 0}, r.server.URL)
	if err := r.walkWire(ctx, pg, p); err != nil {
		return err
	}
	if err := r.end(ctx); err != nil {
		return err
	}
	return r.checkPostgres(pg)
}

// conversations are the points from which the walk counts, and the numbers of messages in the short
// and the long mode.
var conversations = []struct {
	name        string
	begins      func(w wire, m []byte) bool
	short, long int
}{
	{"the start of a session", func(w wire, _ []byte) bool { return w.kind == 0 }, 8, 60},
	// A batch is one transaction in one query: the query, the row of progress, the answer that
	// starts the COPY, the data and its end, and the answer that confirms the commit. Counting
	// continues in the next batch.
	{"a batch", func(w wire, m []byte) bool { return w.toServer && w.kind == 'Q' && bytes.Contains(m, []byte("COPY ")) }, 10, 24},
}

// walkWire causes a fault after each message of each conversation.
func (r *run) walkWire(ctx context.Context, pg *pgtest.Server, p *wireProxy) error {
	for _, talk := range conversations {
		kinds, missed := map[string]int{}, 0
		for n := 1; n <= r.times(talk.short, talk.long); n++ {
			for _, f := range wireFaults {
				begins := talk.begins
				struck := p.arm(n, begins, func(wire) { f.strike(r, pg, p) })
				if begins(wire{toServer: true}, nil) { // cutting a session makes the sink start another
					p.cut()
				}
				limit := time.NewTimer(8 * time.Second)
				select {
				case w := <-struck:
					r.inject(fmt.Sprintf("%s behind message %d of %s, %s", f.name, n, talk.name, w))
					kinds[w.String()]++
				case <-limit.C:
					missed++
					p.disarm()
				case <-ctx.Done():
					return ctx.Err()
				}
				limit.Stop()
				if f.after != nil {
					if err := f.after(ctx, r, pg, p); err != nil {
						return fmt.Errorf("after %s: %w", f.name, err)
					}
				}
			}
		}
		if missed > 0 {
			r.note("%s: %d times no message came within 8 s", talk.name, missed)
		}
		r.note("%s: struck behind %v", talk.name, kinds)
	}
	return nil
}

// checkPostgres reads the tables and compares them with the journal.
func (r *run) checkPostgres(pg *pgtest.Server) error {
	for _, q := range []string{grouped, plain} {
		// One lane writes a queue's messages in the order of their numbers, so the order of rows
		// adds no information. Each message must have one row.
		rows, err := pgtest.Query(pg.DSN("postgres"), `SELECT v FROM "rows_`+q+`" ORDER BY seq`)
		if err != nil {
			return err
		}
		values := make([]string, len(rows))
		for i, row := range rows {
			values[i] = strings.Trim(row[0], `"`)
		}
		r.compare(q, values)
	}
	return nil
}
