//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank/test/kit/load"
	"github.com/surgetank/surgetank/test/targets/judge"
)

// actions are all possible events of a round.
var actions []*action

func init() { actions = slices.Concat(ordinary, migrations, backs) } // set in init, because actions refer to plans and plans to actions

func (w *world) pg() *postgres { return w.db.(*postgres) }
func (w *world) lite() *lite   { return w.db.(*lite) }

// pause keeps a fault for a random real time, because there is no event to wait for.
func (w *world) pause(atMost time.Duration) {
	load.Sleep(w.ctx.Done(), time.Duration(w.plan.rng.Int64N(int64(atMost))))
}

func onlyPartitioned(p *plan) bool { return p.partitioned }

// ordinary are everyday faults. After such a fault, a sink that refuses its target is a bug.
var ordinary = []*action{
	{name: "kill server", run: func(w *world) error {
		w.first().Kill()
		w.pause(100 * time.Millisecond)
		return w.first().start()
	}},
	{name: "restart server", run: func(w *world) error {
		if err := w.first().stop(); err != nil {
			return err
		}
		return w.first().start()
	}},
	{name: "kill postgres", on: "postgres", run: func(w *world) error {
		if err := w.db.kill(); err != nil {
			return err
		}
		w.pause(200 * time.Millisecond)
		return w.db.start()
	}},
	{name: "restart postgres", on: "postgres", run: func(w *world) error { return w.db.restart() }},
	{name: "cut connections", on: "postgres", run: func(w *world) error { return w.pg().cut() }},
	{name: "kill both", run: func(w *world) error {
		w.first().Kill()
		if err := w.db.kill(); err != nil {
			return err
		}
		if err := w.db.start(); err != nil {
			return err
		}
		return w.first().start()
	}},
	{name: "pause and resume", run: func(w *world) error {
		if err := w.first().cli("sink", "pause", "rows"); err != nil {
			return err
		}
		w.advance(30)
		return w.first().cli("sink", "resume", "rows")
	}},
	{name: "sink set anew", run: func(w *world) error {
		// Deleting a sink deletes its record of written messages. So the sink is deleted only when
		// all messages are written and acked.
		defer w.first().pub.release()
		if err := w.quiet(15 * time.Second); err != nil {
			return fmt.Errorf("before the sink is deleted: %w", err)
		}
		if s, err := w.first().sink(); err != nil || stopped(s.State) {
			return err // the judge reports a stopped sink at the end of the round
		}
		if err := w.first().cli("sink", "rm", "rows"); err != nil {
			return err
		}
		return w.first().setSink()
	}},
	{name: "user truncates", run: func(w *world) error {
		if w.plan.kind == "postgres" {
			return w.empty("BEGIN; LOCK TABLE rows_t; CREATE TABLE IF NOT EXISTS gone_t (n bigint); INSERT INTO gone_t SELECT n FROM rows_t; TRUNCATE rows_t; COMMIT")
		}
		return w.empty("BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS gone_t (n INTEGER); INSERT INTO gone_t SELECT n FROM rows_t; DELETE FROM rows_t; COMMIT")
	}},
	{name: "lock held", on: "postgres", run: func(w *world) error {
		if err := w.pg().admin("ALTER DATABASE d SET lock_timeout = '40ms'"); err != nil {
			return err
		}
		if err := w.pg().cut(); err != nil {
			return err
		}
		err := w.db.exec(fmt.Sprintf("BEGIN; LOCK TABLE rows_t IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(%.2f); ROLLBACK", 0.1+0.4*w.plan.rng.Float64()))
		if err != nil {
			return err
		}
		if err := w.pg().admin("ALTER DATABASE d RESET lock_timeout"); err != nil {
			return err
		}
		return w.pg().cut()
	}},
	{name: "statements time out", on: "postgres", run: func(w *world) error {
		// A batch of more than about fifty rows exceeds the time-out. The sink must try smaller
		// batches, so rows must arrive.
		if err := w.db.exec(slowTrigger); err != nil {
			return err
		}
		if err := w.pg().admin("ALTER DATABASE d SET statement_timeout = '150ms'"); err != nil {
			return err
		}
		if err := w.pg().cut(); err != nil {
			return err
		}
		if err := w.partitionsAhead(); err != nil {
			return err
		}
		before, err := w.db.applied()
		if err != nil {
			return err
		}
		w.advance(100)
		if err := w.until(25*time.Second, func() (bool, error) {
			now, err := w.db.applied()
			return len(now) >= len(before)+20, err
		}); err != nil {
			if s, serr := w.first().sink(); serr != nil || !stopped(s.State) {
				w.fail(judge.Stuck, "with a statement time-out that 30 rows fit into, no 20 rows arrived in 25 s; sink %s %s", s.State, s.Reason)
			}
		}
		if err := w.db.exec(calmTrigger); err != nil {
			return err
		}
		if err := w.pg().admin("ALTER DATABASE d RESET statement_timeout"); err != nil {
			return err
		}
		return w.pg().cut()
	}},
	{name: "table away and back", run: func(w *world) error {
		if err := w.db.exec("ALTER TABLE rows_t RENAME TO rows_away"); err != nil {
			return err
		}
		w.advance(30)
		w.pause(200 * time.Millisecond)
		return w.db.exec("ALTER TABLE rows_away RENAME TO rows_t")
	}},
	{name: "partition missing", on: "postgres", with: onlyPartitioned, run: func(w *world) error {
		// Messages with numbers of upto and above have no partition. Publishers first publish such
		// messages, and then the partitions are created.
		w.mu.Lock()
		past := w.upto - w.next
		w.mu.Unlock()
		w.advance(max(20, past+40))
		w.pause(200 * time.Millisecond)
		return w.morePartitions(w.upto + 3*width)
	}},
	{name: "partition detached", on: "postgres", with: onlyPartitioned, run: func(w *world) error {
		w.mu.Lock()
		n := max(0, min(w.next, w.upto-1)) / width * width
		w.mu.Unlock()
		if err := w.db.exec(fmt.Sprintf("ALTER TABLE rows_t DETACH PARTITION rows_%d", n)); err != nil {
			return err
		}
		w.advance(60)
		return w.db.exec(fmt.Sprintf("ALTER TABLE rows_t ATTACH PARTITION rows_%d FOR VALUES FROM (%d) TO (%d)", n, n, n+width))
	}},
	{name: "server disk full", disk: true, run: func(w *world) error {
		free, err := fill(w.serverDisk, 32<<10)
		if err != nil {
			return err
		}
		w.advance(100)
		w.pause(500 * time.Millisecond)
		if err := free(); err != nil {
			return err
		}
		return w.revive()
	}},
	{name: "target disk full", disk: true, run: func(w *world) error {
		free, err := fill(w.targetDisk, 16<<10)
		if err != nil {
			return err
		}
		w.advance(150)
		w.pause(500 * time.Millisecond)
		if err := free(); err != nil {
			return err
		}
		return w.reviveTarget()
	}},
	{name: "second server", run: func(w *world) error {
		if len(w.nodes) > 1 {
			return nil
		}
		n := w.newNode("b", w.dir+"/data-b")
		if err := n.start(); err != nil {
			return err
		}
		if err := n.setUp(); err != nil {
			return err
		}
		n.pub = newPublisher(n)
		return nil
	}},
}

// quiet stops the first publisher and waits until all sent messages are written and acked.
func (w *world) quiet(limit time.Duration) error {
	w.first().pub.hold()
	if err := w.partitionsAhead(); err != nil {
		return err
	}
	return w.drained(limit)
}

// partitionsAhead creates missing partitions for sent messages and the next ones.
func (w *world) partitionsAhead() error {
	if to := w.count()/width*width + 3*width; w.plan.partitioned && to > w.upto {
		return w.morePartitions(to)
	}
	return nil
}

// empty runs statements that first record the table's rows in gone_t and then delete the rows.
func (w *world) empty(sql string) error {
	w.mu.Lock()
	w.emptied = true
	w.mu.Unlock()
	return w.db.exec(sql)
}

// revive starts the first server if it has ended.
func (w *world) revive() error {
	select {
	case <-w.first().Exited():
		w.notes = append(w.notes, "the server ended on a full disk")
		return w.first().start()
	default:
		return nil
	}
}

// reviveTarget starts PostgreSQL if it has ended.
func (w *world) reviveTarget() error {
	if w.plan.kind != "postgres" {
		return nil
	}
	if err := w.db.exec("SELECT 1"); err == nil {
		return nil
	} else if w.pg().s.Running() && !strings.Contains(err.Error(), "refused") {
		// PostgreSQL recovers from the full disk by itself.
		return w.until(20*time.Second, func() (bool, error) { return w.db.exec("SELECT 1") == nil, nil })
	}
	if err := w.db.kill(); err != nil {
		return err
	}
	return w.db.start()
}

func (w *world) morePartitions(to int) error {
	from := w.upto
	if err := w.db.exec(partitions(from, to)); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.upto = to
	return nil
}

// until polls a condition of a real process.
func (w *world) until(limit time.Duration, done func() (bool, error)) error {
	end := time.NewTimer(limit)
	defer end.Stop()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		if ok, err := done(); err != nil || ok {
			return err
		}
		select {
		case <-retry.C:
		case <-end.C:
			return fmt.Errorf("the awaited state did not come within %v", limit)
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
	}
}
