//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/test/kit/load"
)

// garbage is the memory that can accumulate between two collections in every case. It is twice the
// collector's headroom, because the server sets the collector's limit only once a second.
const garbage = 128 * mib

// memoryCases are all cases. A comment at each limit explains its parts.
var memoryCases = []memoryCase{
	{name: "a consumer without prefetch that never acks", backlog: true, run: neverAcks},
	{name: "64 consumers that never read their socket", backlog: true, run: neverReads},
	{name: "8 publishers that never read confirms", run: flood(floodPlain)},
	{name: "8 publishers to a full queue that never read nacks", run: flood(floodFull)},
	{name: "8 publishers of what finds no queue, that never read returns", run: flood(floodLost)},
	{name: "8 publishers that ignore connection.blocked", full: true, run: floodAlarmed},
	{name: "64 channels with half of 16 MiB each", run: halfBodies(1)},
	{name: "8 connections of 64 channels with half of 16 MiB each", run: halfBodies(8)},
	{name: "idle connections with a channel", run: idle(false)},
	{name: "idle connections with a consumer", run: idle(true)},
	{name: "idle connections whose consumer has had messages", backlog: true, run: idleServed},
	{name: "connections that never log in", run: strangers},
	{name: "long polls", run: longPolls},
	{name: "request bodies that stall", run: stalledBodies},
	{name: "answers that nobody reads", backlog: true, run: unreadAnswers},
}

// leased returns how many messages of the backlog are leased.
func (c *caseRun) leased(ctx context.Context) int64 {
	w := newWeb(c.p)
	defer w.Close()
	q, err := w.Queue(ctx, backlogQueue)
	if err != nil || q == nil {
		return 0
	}
	return q.Leased
}

// settleDown polls a number with the function of. It returns when the number has not changed for
// the time quiet, or after limit.
func (c *caseRun) settleDown(ctx context.Context, quiet, limit time.Duration, of func() int64) {
	last, since := int64(-1), time.Now()
	for end := time.Now().Add(limit); time.Now().Before(end) && time.Since(since) < quiet; {
		if n := of(); n != last {
			last, since = n, time.Now()
		}
		if !load.Sleep(ctx.Done(), 200*time.Millisecond) {
			return
		}
	}
}

func (c *caseRun) dial() (*rawConn, error) {
	r, err := dialRaw(c.p.AMQP(), 0)
	if err == nil {
		c.atEnd(r.close)
	}
	return r, err
}

// neverAcks receives all messages on channels without prefetch, and acks none.
func neverAcks(ctx context.Context, c *caseRun) (int64, error) {
	from := c.rss()
	r, err := c.dial()
	if err != nil {
		return 0, err
	}
	for ch := uint16(1); ch <= 6; ch++ {
		if err := r.open(ch); err != nil {
			return 0, err
		}
	}
	for ch := uint16(1); ch <= 6; ch++ {
		if err := r.write(wire.AppendMethod(nil, ch, &wire.BasicConsume{Queue: backlogQueue, ConsumerTag: "c"})); err != nil {
			return 0, err
		}
	}
	go func() { _, _ = io.Copy(io.Discard, r.nc) }() // reads until the connection is closed
	c.settleDown(ctx, 3*time.Second, 3*time.Minute, func() int64 { return c.leased(ctx) })
	out := c.leased(ctx)
	c.note("%d deliveries were out at a time, on 6 channels; at most %.0f bytes of memory each", out, float64(c.peak.Load()-from)/float64(max(out, 1)))
	return garbage + out*perUnacked, nil
}

// perUnacked limits the memory for one unacked delivery: its entry in the channel, including spare
// room of the growing list, its lease, and the index from receipt to message.
const perUnacked = 400

// neverReads starts consumers that do not read their deliveries.
func neverReads(ctx context.Context, c *caseRun) (int64, error) {
	for range 64 {
		r, err := c.dial()
		if err != nil {
			return 0, err
		}
		if err := r.open(1); err != nil {
			return 0, err
		}
		if err := r.write(wire.AppendMethod(nil, 1, &wire.BasicConsume{Queue: backlogQueue, ConsumerTag: "c"})); err != nil {
			return 0, err
		}
	}
	c.settleDown(ctx, 3*time.Second, time.Minute, func() int64 { return c.leased(ctx) })
	out := c.leased(ctx)
	c.note("%d deliveries were out, to 64 consumers", out)
	return garbage + 64*mib + out*perUnacked, nil
}

// The kinds of floods.
type floodKind int

const (
	floodPlain floodKind = iota
	floodFull
	floodLost
)

// flood starts publishers that send as fast as their sockets allow and do not read their confirms.
func flood(kind floodKind) func(ctx context.Context, c *caseRun) (int64, error) {
	return func(ctx context.Context, c *caseRun) (int64, error) {
		w := newWeb(c.p)
		defer w.Close()
		queue, settings, size := "flood", `{"max_messages":100000,"overflow":"drop_oldest"}`, 1024
		switch kind {
		case floodFull:
			settings, size = `{"max_messages":10,"overflow":"reject"}`, 16
		case floodLost:
			queue = "there-is-no-such-queue"
		}
		if err := w.Declare(ctx, "flood", settings); err != nil {
			return 0, err
		}
		sent, err := c.publishFlood(ctx, 8, queue, size)
		c.note("%d messages of %d bytes were sent in %v", sent, size, c.flood)
		if kind == floodFull { // a small message uses more memory than the mailbox counts for it
			return garbage + 2*floodBound, err
		}
		return garbage + floodBound, err
	}
}

// floodBound limits the memory for publishes in progress: the broker's mailbox, the commands of the
// current turn, entries on their way to the log, and the buffers and batches of 8 connections.
const floodBound = 32*mib + 32*mib + 8*mib + 8*8*mib

// publishFlood publishes on n connections for the duration of a flood. The connections stay open.
func (c *caseRun) publishFlood(ctx context.Context, n int, queue string, size int) (int64, error) {
	var piece []byte
	const per = 64
	for range per {
		piece = wire.AppendMethod(piece, 1, &wire.BasicPublish{RoutingKey: queue, Mandatory: true})
		piece = wire.AppendHeader(piece, 1, size, []byte{0x10, 0x00, 2})
		piece = wire.AppendBody(piece, 1, []byte(strings.Repeat("y", size)), rawFrame)
	}
	var sent atomic.Int64
	var g sync.WaitGroup
	end := time.Now().Add(c.flood)
	for range n {
		r, err := c.dial()
		if err != nil {
			return 0, err
		}
		if err := r.open(1); err != nil {
			return 0, err
		}
		if err := r.call(1, &wire.ConfirmSelect{}, wire.IDConfirmSelectOk); err != nil {
			return 0, err
		}
		g.Go(func() {
			_ = r.nc.SetWriteDeadline(end)
			for r.write(piece) == nil { // fails when the time is over or the server closes the connection
				sent.Add(per)
			}
		})
	}
	g.Wait()
	return sent.Load(), ctx.Err()
}

// floodAlarmed publishes until the disk is full, and keeps sending.
func floodAlarmed(ctx context.Context, c *caseRun) (int64, error) {
	w := newWeb(c.p)
	defer w.Close()
	if err := w.Declare(ctx, "flood", `{}`); err != nil {
		return 0, err
	}
	sent, err := c.publishFlood(ctx, 8, "flood", 1024)
	if err != nil {
		return 0, err
	}
	again, err := c.publishFlood(ctx, 8, "flood", 1024)
	c.note("%d messages were taken until the disk of 512 MiB was full or the time over, %d by sockets after it", sent, again)
	r, err := dialRaw(c.p.AMQP(), 0) // checks that a new client is told about the alarm
	if err != nil {
		return 0, err
	}
	defer r.close()
	if err := r.open(1); err != nil {
		return 0, err
	}
	piece := wire.AppendMethod(nil, 1, &wire.BasicPublish{RoutingKey: "flood"})
	piece = wire.AppendHeader(piece, 1, 1, []byte{0, 0})
	if err := r.write(wire.AppendBody(piece, 1, []byte("z"), rawFrame)); err != nil {
		return 0, err
	}
	_ = r.nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := r.expect(wire.IDConnectionBlocked); err != nil {
		c.fail("a publisher was not told connection.blocked on a full disk: %v", err)
	}
	return garbage + 2*floodBound, nil
}

// halfBodies announces bodies of 16 MiB on 64 channels of each connection. It sends half of each
// body, on all channels at the same pace.
func halfBodies(connections int) func(ctx context.Context, c *caseRun) (int64, error) {
	return func(ctx context.Context, c *caseRun) (int64, error) {
		const whole, piece = 16 * mib, 128 << 10
		body := make([]byte, piece-wire.FrameOverhead)
		var g sync.WaitGroup
		var closed, sent atomic.Int64
		for range connections {
			r, err := c.dial()
			if err != nil {
				return 0, err
			}
			for ch := uint16(1); ch <= 64; ch++ {
				if err := r.open(ch); err != nil {
					return 0, err
				}
			}
			g.Go(func() {
				var b []byte
				for ch := uint16(1); ch <= 64; ch++ {
					b = wire.AppendMethod(b, ch, &wire.BasicPublish{RoutingKey: "nowhere"})
					b = wire.AppendHeader(b, ch, whole, []byte{0, 0})
				}
				_ = r.nc.SetWriteDeadline(time.Now().Add(2 * time.Minute))
				err := r.write(b)
				for n := 0; n < whole/2 && err == nil; n += len(body) {
					for ch := uint16(1); ch <= 64 && err == nil; ch++ {
						err = r.write(wire.AppendFrame(b[:0], wire.FrameBody, ch, body))
						sent.Add(int64(len(body)))
					}
				}
				_ = r.nc.SetReadDeadline(time.Now().Add(2 * time.Second))
				if err != nil || !errors.Is(r.expect(wire.IDConnectionUnblocked), os.ErrDeadlineExceeded) { // the server sends no connection.unblocked here: only a close ends the wait early
					closed.Add(1)
				}
			})
		}
		g.Wait()
		c.note("%s of bodies were written to sockets; %d of %d connections were closed for it", size(sent.Load()), closed.Load(), connections)
		c.settleDown(ctx, 2*time.Second, 20*time.Second, func() int64 { return c.rss() >> 20 })
		return garbage + bodiesBound + int64(connections)*mib, nil
	}
}

// bodiesBound is twice the AMQP door's limit for all unfinished bodies. A growing buffer is copied,
// and the smaller one becomes garbage.
const bodiesBound = 2 * 256 * mib

// idleConns opens n connections that only send heartbeats. It calls each for every connection.
func (c *caseRun) idleConns(ctx context.Context, n int, each func(i int, r *rawConn) error) error {
	conns := make([]*rawConn, n)
	var next atomic.Int64
	var g sync.WaitGroup
	var failed atomic.Pointer[error]
	for range 32 {
		g.Go(func() {
			for failed.Load() == nil && ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				r, err := dialRaw(c.p.AMQP(), 60)
				if err == nil {
					conns[i] = r
					if err = r.open(1); err == nil && each != nil {
						err = each(i, r)
					}
				}
				if err != nil {
					err = fmt.Errorf("connection %d: %w", i, err)
					failed.Store(&err)
				}
			}
		})
	}
	g.Wait()
	stop := make(chan struct{})
	c.atEnd(func() {
		close(stop)
		for _, r := range conns {
			if r != nil {
				r.close()
			}
		}
	})
	if err := failed.Load(); err != nil {
		return *err
	}
	go func() {
		beat := wire.AppendHeartbeat(nil)
		for load.Sleep(stop, 20*time.Second) {
			for _, r := range conns {
				_ = r.write(beat) // a failed write is visible in the count at the end
			}
		}
	}()
	return ctx.Err()
}

// perIdle limits the memory for an idle connection with a channel, and perConsumer for each
// consumer on it: goroutine stacks, the read buffer, names, the channel, the subscription.
const (
	perIdle     = 32 << 10
	perConsumer = 16 << 10
)

// idle opens idle connections. If consumers is true, each has a consumer on one of 100 queues. A
// worker publishes before and with these connections, and its latency must stay below twice the
// earlier value.
func idle(consumers bool) func(ctx context.Context, c *caseRun) (int64, error) {
	return func(ctx context.Context, c *caseRun) (int64, error) {
		w := newWeb(c.p)
		defer w.Close()
		for i := range 100 {
			if err := w.Declare(ctx, fmt.Sprintf("idle-%d", i), "{}"); err != nil {
				return 0, err
			}
		}
		worker, err := newWorker(ctx, c)
		if err != nil {
			return 0, err
		}
		before := worker.p99(ctx)
		from := c.rss()
		began := time.Now()
		err = c.idleConns(ctx, c.connections, func(i int, r *rawConn) error {
			if consumers {
				return r.consume(1, fmt.Sprintf("idle-%d", i%100))
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		took := time.Since(began)
		c.settleDown(ctx, 8*time.Second, 40*time.Second, func() int64 { return c.rss() >> 22 })
		each := float64(c.rss()-from) / float64(c.connections)
		during := worker.p99(ctx)
		ratio := float64(during) / float64(max(before, 1))
		for range 2 { // repeat a bad measurement, because other activity can disturb it
			if ratio >= 2 {
				during = min(during, worker.p99(ctx))
				ratio = float64(during) / float64(before)
			}
		}
		c.note("%d connections, opened in %v, held %.1f KiB each; p99 of a working client's publish: %s ms before, %s ms with them (%.2f times)", c.connections, took.Round(time.Second/10), each/1024, ms(before), ms(during), ratio)
		if ratio >= 2 {
			c.fail("the working client's p99 is %.2f times what it was", ratio)
		}
		bound := int64(perIdle)
		if consumers {
			bound += perConsumer
		}
		return garbage + int64(c.connections)*bound, nil
	}
}

// idleServed first delivers a part of the backlog to every idle consumer, so that together the
// consumers have received messages from every entry of the log.
func idleServed(ctx context.Context, c *caseRun) (int64, error) {
	from := c.rss()
	each := max(c.messages/c.connections, 1)
	err := c.idleConns(ctx, c.connections, func(_ int, r *rawConn) error {
		if err := r.call(1, &wire.BasicQos{PrefetchCount: uint16(min(each, 60_000))}, wire.IDBasicQosOk); err != nil {
			return err
		}
		if err := r.consume(1, backlogQueue); err != nil {
			return err
		}
		_ = r.nc.SetReadDeadline(time.Now().Add(30 * time.Second))
		for range each {
			if err := r.expect(wire.IDBasicDeliver); err != nil {
				return err
			}
		}
		return r.nc.SetReadDeadline(time.Time{})
	})
	if err != nil {
		return 0, err
	}
	c.settleDown(ctx, 8*time.Second, 40*time.Second, func() int64 { return c.rss() >> 22 })
	c.note("%d connections, each with %d unacknowledged messages, held %.1f KiB each", c.connections, each, float64(c.rss()-from)/float64(c.connections)/1024)
	return garbage + int64(c.connections)*(perIdle+perConsumer+int64(each)*perUnacked), nil
}

// strangers opens many connections that do not log in. Then a client must be able to log in.
func strangers(ctx context.Context, c *caseRun) (int64, error) {
	var open []net.Conn
	c.atEnd(func() {
		for _, nc := range open {
			_ = nc.Close() // most of these connections are closed
		}
	})
	for i := range c.connections {
		nc, err := net.DialTimeout("tcp", c.p.AMQP(), 5*time.Second)
		if err != nil {
			return 0, err
		}
		if i%2 == 0 {
			_, _ = io.WriteString(nc, wire.ProtocolHeader) // the server may have closed the connection at once
		}
		open = append(open, nc)
	}
	peak, err := c.p.look(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	for {
		r, err := dialRaw(c.p.AMQP(), 0)
		if err == nil {
			r.close()
			break
		}
		if time.Since(began) > 30*time.Second {
			c.fail("nobody can log in 30 s after %d strangers came: %v", c.connections, err)
			break
		}
		if !load.Sleep(ctx.Done(), 100*time.Millisecond) {
			return 0, ctx.Err()
		}
	}
	c.note("%d connections that never log in: %d sockets of them were open at the end of the rush; a client that logs in got through %v later", c.connections, peak.FDs, time.Since(began).Round(10*time.Millisecond))
	return garbage + 1024*perIdle, nil
}

// web1 sends the head of a request on a connection of its own.
func (c *caseRun) web1(head, body string) (net.Conn, error) {
	nc, err := net.DialTimeout("tcp", c.p.HTTP(), 10*time.Second)
	if err != nil {
		return nil, err
	}
	c.atEnd(func() { _ = nc.Close() }) // the connection may already be closed
	_, err = fmt.Fprintf(nc, "%s\r\nHost: %s\r\n%s", head, c.p.HTTP(), body)
	return nc, err
}

// perPoll limits the memory for a long poll: net/http's buffers and goroutines, and the consumer.
const perPoll = 64 << 10

// longPolls starts many clients that wait for a message of an empty queue.
func longPolls(ctx context.Context, c *caseRun) (int64, error) {
	w := newWeb(c.p)
	defer w.Close()
	if err := w.Declare(ctx, "quiet", "{}"); err != nil {
		return 0, err
	}
	from := c.rss()
	for range c.polls {
		ask := `{"max":1000,"wait":"55s"}`
		if _, err := c.web1("POST /v1/queues/quiet/receive HTTP/1.1", fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(ask), ask)); err != nil {
			return 0, err
		}
	}
	c.settleDown(ctx, 4*time.Second, 20*time.Second, func() int64 { return c.rss() >> 20 })
	c.note("%d long polls held %.1f KiB each", c.polls, float64(c.rss()-from)/float64(c.polls)/1024)
	return garbage + int64(c.polls)*perPoll, nil
}

// httpBodies is the HTTP door's limit for all request bodies together, and httpAnswers for all
// answers.
const (
	httpBodies  = 512 * mib
	httpAnswers = 256 * mib
)

// stalledBodies starts many clients that announce bodies of 16 MiB, send 2 MiB, and stop.
func stalledBodies(ctx context.Context, c *caseRun) (int64, error) {
	w := newWeb(c.p)
	defer w.Close()
	if err := w.Declare(ctx, "quiet", "{}"); err != nil {
		return 0, err
	}
	part := strings.Repeat("z", 64<<10)
	var g sync.WaitGroup
	turns := make(chan struct{}, 64)
	var refused atomic.Int64
	for range c.polls {
		nc, err := c.web1("POST /v1/queues/quiet/messages HTTP/1.1", fmt.Sprintf("Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n", 16*mib))
		if err != nil {
			return 0, err
		}
		turns <- struct{}{}
		g.Go(func() {
			defer func() { <-turns }()
			_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
			for range 32 {
				if _, err := io.WriteString(nc, part); err != nil {
					refused.Add(1)
					return
				}
			}
		})
	}
	g.Wait()
	c.note("%d bodies of 16 MiB were begun, 2 MiB sent of each; %d were refused on the way", c.polls, refused.Load())
	return garbage + httpBodies + int64(c.polls)*perPoll, nil
}

// unreadAnswers starts many clients that each ask for a thousand messages and do not read the
// answer.
func unreadAnswers(ctx context.Context, c *caseRun) (int64, error) {
	ask := `{"max":1000}`
	for range c.polls {
		_, err := c.web1("POST /v1/queues/"+backlogQueue+"/receive HTTP/1.1", fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(ask), ask))
		if err != nil {
			return 0, err
		}
	}
	c.settleDown(ctx, 4*time.Second, time.Minute, func() int64 { return c.leased(ctx) })
	c.note("%d clients asked for 1,000 messages of 1 KiB each and did not read; %d messages were out at the end", c.polls, c.leased(ctx))
	return garbage + httpAnswers + int64(c.polls)*perPoll + c.leased(ctx)*perUnacked, nil
}
