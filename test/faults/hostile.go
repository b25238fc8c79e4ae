//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank/test/hostile"
	"github.com/surgetank/surgetank/test/kit/server"
)

// beginOpen starts a run whose server also has AMQP. It opens a bystander, a connection that no
// attack may disturb.
func (r *run) beginOpen(ctx context.Context, o loadOptions) (hostile.AMQP, *hostile.Bystander, error) {
	r.server.Listen("", server.AnyPort)
	if err := r.begin(ctx, o); err != nil {
		return hostile.AMQP{}, nil, err
	}
	s := hostile.AMQP{Dial: dialer(r.server.AMQP()), User: "guest", Password: "guest", Patience: 30 * time.Second}
	b, err := s.Watch()
	return s, b, err
}

func dialer(address string) func() (net.Conn, error) {
	return func() (net.Conn, error) { return net.DialTimeout("tcp", address, 5*time.Second) }
}

// endOpen ends a run of beginOpen. The bystander must not have been disturbed, and the server's log
// must show no defect.
func (r *run) endOpen(ctx context.Context, b *hostile.Bystander) error {
	n, err := b.Stop()
	if err != nil {
		r.fail("others served", "an honest AMQP connection was disturbed after %d messages: %v", n, err)
	}
	r.note("an honest AMQP connection exchanged %d messages meanwhile", n)
	if !r.progress(ctx, 50, 20*time.Second) {
		r.fail("others served", "nothing was confirmed for 20 s afterwards")
	}
	err = r.end(ctx)
	if words := r.server.Tail(64 << 20); strings.Contains(words, "panic") || strings.Contains(words, "a defect ended") {
		r.fail("panic", "the server's log shows a defect: %.600s", words[max(0, strings.Index(words, "panic")-200):])
	}
	return err
}

// settles checks that the numbers of descriptors and goroutines fall back to their earlier values.
func (r *run) settles(ctx context.Context, fds, goroutines int) {
	if !r.until(ctx, 40*time.Second, func() bool { return r.server.FDs() <= fds+30 }) {
		r.fail("descriptors", "%d descriptors were open before, %d are 40 s afterwards", fds, r.server.FDs())
	}
	if !r.until(ctx, 40*time.Second, func() bool { return r.goroutines() <= goroutines+60 }) {
		r.fail("goroutines", "%d goroutines ran before, %d do 40 s afterwards", goroutines, r.goroutines())
	}
}

// goroutines returns the server's number of goroutines, or a very high number if the server does
// not answer.
func (r *run) goroutines() int {
	c := r.client()
	defer c.Close()
	m, err := c.Metrics(context.Background())
	if err != nil {
		return math.MaxInt32
	}
	return int(m["go_goroutines"])
}

// offence is one attack on the server.
type offence struct {
	name string
	run  func() error
}

// commit runs the offences, many at a time.
func (r *run) commit(ctx context.Context, list []offence) {
	var (
		wait  sync.WaitGroup
		mu    sync.Mutex
		slots = make(chan struct{}, 24)
	)
	for _, o := range list {
		if ctx.Err() != nil {
			r.fail("time", "not all of %d could be played", len(list))
			break
		}
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			if err := o.run(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				r.fail("answered", "%s: %v", o.name, err)
			}
		})
	}
	wait.Wait()
	r.injected += len(list)
}

// badRequests sends the tables of malformed AMQP and HTTP requests to the server under the usual
// load: whole, byte by byte, and cut. Each request must get its expected answer and store nothing.
// Other clients must not be affected.
func badRequests(ctx context.Context, r *run) error {
	amqp, bystander, err := r.beginOpen(ctx, loadOptions{})
	if err != nil {
		return err
	}
	web := hostile.HTTP{Dial: dialer(r.server.HTTP()), Patience: 30 * time.Second, MaxBody: 16 << 20}
	if err := web.Prepare(); err != nil {
		return err
	}
	fds, goroutines := r.server.FDs(), r.goroutines()
	var whole, cuts []offence
	cases, calls := hostile.Cases(), hostile.HTTPCases()
	for i, c := range cases {
		for _, slow := range []bool{false, true} {
			whole = append(whole, offence{c.String(), func() error { return amqp.Play(c, slow) }})
		}
		stream := c.Stream(amqp, 1)
		for _, at := range c.Places(amqp, cases[:i], r.long) {
			for _, e := range []hostile.Ending{hostile.FIN, hostile.RST} {
				cuts = append(cuts, offence{c.String(), func() error { return amqp.Cut(stream, at, e) }})
			}
		}
	}
	for i, c := range calls {
		whole = append(whole, offence{"HTTP " + c.String(), func() error { return web.Play(c, false) }})
		for _, at := range c.Places(calls[:i], r.long) {
			for _, e := range []hostile.Ending{hostile.FIN, hostile.RST} {
				cuts = append(cuts, offence{"HTTP " + c.String(), func() error { return web.Cut(c, at, e) }})
			}
		}
	}
	r.commit(ctx, whole)
	if n := r.times(1500, len(cuts)); n < len(cuts) {
		r.rng.Shuffle(len(cuts), func(i, j int) { cuts[i], cuts[j] = cuts[j], cuts[i] })
		cuts = cuts[:n]
	}
	r.commit(ctx, cuts)
	r.note("%d cases of AMQP and %d of HTTP, and %d cuts", len(cases), len(calls), len(cuts))
	if err := web.Untouched(); err != nil {
		r.fail("stored", "%v", err)
	}
	r.settles(ctx, fds, goroutines)
	return r.endOpen(ctx, bystander)
}

// connectStorm opens many connections to the HTTP and AMQP doors under the usual load. They send
// nothing, or only the beginning of a request. Existing clients must be served, and silent
// connections must be closed.
func connectStorm(ctx context.Context, r *run) error {
	amqp, bystander, err := r.beginOpen(ctx, loadOptions{})
	if err != nil {
		return err
	}
	r.progress(ctx, 50, 10*time.Second)
	fds, memory, goroutines := r.server.FDs(), r.server.RSS(), r.goroutines()
	var (
		mu    sync.Mutex
		conns []net.Conn
		wait  sync.WaitGroup
	)
	total := r.times(1000, 10_000)
	begun := map[string][]string{
		r.server.HTTP(): {"", "POST /v1/queues/plain/receive HTTP/1.1\r\nHost:", "POST /v1/queues/plain/receive HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nAuthorization: none\r\n\r\n"},
		r.server.AMQP(): {"", "AMQP", "AMQP\x00\x00\x09\x01\x01\x00\x00\x00\x00\x0f"},
	}
	for address, first := range begun {
		for w := range 10 {
			wait.Go(func() {
				for i := range total / 20 {
					c, err := net.DialTimeout("tcp", address, time.Second)
					if err != nil {
						continue // a limit refused the connection, which is as good as closing it
					}
					_, _ = io.WriteString(c, first[(w+i)%len(first)]) // the server may have closed it
					mu.Lock()
					conns = append(conns, c)
					mu.Unlock()
				}
			})
		}
	}
	wait.Wait()
	r.injected = len(conns)
	if !r.progress(ctx, 100, 15*time.Second) {
		r.fail("others served", "beside %d idle connections nothing was confirmed for 15 s", len(conns))
	}
	now := r.server.RSS()
	r.note("memory: %d MiB before, %d MiB with %d idle connections", memory>>20, now>>20, len(conns))
	if now > memory+int64(len(conns))*64<<10+64<<20 {
		r.fail("memory", "%d idle connections grew the server from %d to %d MiB", len(conns), memory>>20, now>>20)
	}
	// The server must close connections with a begun request within its limits: 10 s for the
	// opening and 10 s for a body. HTTP connections without a request may stay open for the idle
	// time, so this side closes them first.
	var put atomic.Int64
	for _, c := range conns {
		if c.RemoteAddr().String() == r.server.AMQP() {
			wait.Go(func() {
				if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
					return
				}
				if _, err := io.Copy(io.Discard, c); err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
					put.Add(1)
				}
			})
		}
	}
	wait.Wait()
	strangers := 0
	for _, c := range conns {
		if c.RemoteAddr().String() == r.server.AMQP() {
			strangers++
		}
	}
	if n := int(put.Load()); n != strangers {
		r.fail("put out", "of %d AMQP connections that did not log in %d were put out within 30 s", strangers, n)
	}
	for _, c := range conns {
		_ = c.Close()
	}
	r.settles(ctx, fds, goroutines)
	r.crowd(ctx, amqp)
	r.settles(ctx, fds, goroutines)
	return r.endOpen(ctx, bystander)
}

// crowd opens as many connections without a login as AMQP allows, from several addresses of this
// machine, and replaces each closed one. Meanwhile a normal client must repeatedly be able to log
// in soon.
func (r *run) crowd(ctx context.Context, amqp hostile.AMQP) {
	const addresses, each = 16, 80 // the door allows 1,024 connections without a login
	ctx, stop := context.WithCancel(ctx)
	var (
		crowd, dialled sync.WaitGroup
		lost           atomic.Int64
	)
	for i := range addresses * each {
		dialled.Add(1)
		crowd.Go(func() {
			from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%addresses))}, Timeout: 5 * time.Second}
			for first := true; ctx.Err() == nil; first = false {
				c, err := from.DialContext(ctx, "tcp", r.server.AMQP())
				if first {
					dialled.Done()
				}
				if err == nil {
					end := context.AfterFunc(ctx, func() { _ = c.Close() }) // no other code uses the connection any more
					_, _ = io.Copy(io.Discard, c)                           // returns when either side closes the connection
					end()
					_ = c.Close()
					lost.Add(1)
				}
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	dialled.Wait()
	honest := amqp
	honest.Patience = 5 * time.Second
	slowest := time.Duration(0)
	for range r.times(10, 100) {
		begun := time.Now()
		if err := honest.Admitted(); err != nil {
			r.fail("others served", "while %d strangers hold all places nobody can log in: %v", addresses*each, err)
			break
		}
		slowest = max(slowest, time.Since(begun))
		r.injected++
	}
	r.note("%d strangers from %d addresses lost their place %d times; the slowest honest login took %v", addresses*each, addresses, lost.Load(), slowest.Round(time.Millisecond))
	stop()
	crowd.Wait()
}

// loginStorm tries passwords over HTTP and AMQP as fast as possible, while publishers and consumers
// work.
func loginStorm(ctx context.Context, r *run) error {
	amqp, bystander, err := r.beginOpen(ctx, loadOptions{})
	if err != nil {
		return err
	}
	r.progress(ctx, 50, 10*time.Second)
	fds, memory, goroutines := r.server.FDs(), r.server.RSS(), r.goroutines()
	storm, stop := context.WithTimeout(ctx, time.Duration(r.times(4, 60))*time.Second)
	defer stop()
	var (
		tries, let, other atomic.Int64
		wait              sync.WaitGroup
	)
	for w := range 12 {
		wait.Go(func() {
			c := &http.Client{Timeout: 30 * time.Second}
			defer c.CloseIdleConnections()
			for i := 0; storm.Err() == nil; i++ {
				user := fmt.Sprintf("user-%d-%d", w, i/3) // most names are tried three times in a row
				if i%5 == 0 {
					user = "guest"
				}
				tries.Add(1)
				if w%2 == 0 {
					wrong := amqp
					wrong.User, wrong.Password = user, fmt.Sprint("guess", i)
					if wrong.Refused() != nil {
						other.Add(1)
					}
					continue
				}
				req, err := http.NewRequestWithContext(ctx, "GET", r.server.URL()+"/v1/whoami", nil)
				if err != nil {
					continue
				}
				req.SetBasicAuth(user, fmt.Sprint("guess", i))
				res, err := c.Do(req)
				if err != nil {
					other.Add(1)
					continue
				}
				_ = res.Body.Close()
				switch res.StatusCode {
				case http.StatusOK:
					let.Add(1)
				case http.StatusUnauthorized, http.StatusTooManyRequests:
				default:
					other.Add(1)
				}
			}
		})
	}
	most := int64(0)
	for storm.Err() == nil {
		if !r.progress(ctx, 20, 15*time.Second) {
			r.fail("others served", "in the storm nothing was confirmed for 15 s")
			break
		}
		most = max(most, r.server.RSS())
	}
	stop()
	wait.Wait()
	r.injected = int(tries.Load())
	r.note("%d logins tried; memory %d MiB before, at most %d MiB", tries.Load(), memory>>20, most>>20)
	if n := let.Load(); n > 0 {
		r.fail("login", "%d of %d wrong passwords were let in", n, tries.Load())
	}
	if n := other.Load(); n > 0 {
		r.fail("answered", "%d of %d wrong logins got neither a refusal nor a request to wait", n, tries.Load())
	}
	if most > memory+2*19<<20+128<<20 { // memory of two hashes at a time, and of the load itself
		r.fail("memory", "the storm grew the server from %d to %d MiB", memory>>20, most>>20)
	}
	r.settles(ctx, fds, goroutines)
	return r.endOpen(ctx, bystander)
}

// limitChurn creates channels, consumers, exchanges, bindings and queues up to their limits and
// deletes them, several times.
func limitChurn(ctx context.Context, r *run) error {
	amqp, bystander, err := r.beginOpen(ctx, loadOptions{})
	if err != nil {
		return err
	}
	r.progress(ctx, 50, 10*time.Second)
	fds, goroutines, queues := r.server.FDs(), r.goroutines(), r.queues(ctx)
	limits := hostile.Limits{Channels: 2047, Consumers: 8192, Exchanges: 65536, Queues: 500}
	if r.long {
		limits.Bindings, limits.Queues = 1<<20, 20_000
	}
	for range r.times(1, 3) {
		if err := amqp.Churn(limits); err != nil {
			r.fail("limits", "%v", err)
		}
		r.injected++
	}
	r.settles(ctx, fds, goroutines)
	if !r.until(ctx, 20*time.Second, func() bool { return r.queues(ctx) == queues }) {
		r.fail("queues", "%d queues were there before, %d are afterwards", queues, r.queues(ctx))
	}
	r.note("memory afterwards: %d MiB", r.server.RSS()>>20)
	return r.endOpen(ctx, bystander)
}

// queues returns the number of queues.
func (r *run) queues(ctx context.Context) int {
	c := r.client()
	defer c.Close()
	list, err := c.Queues(ctx)
	if err != nil {
		return -1
	}
	return len(list)
}
