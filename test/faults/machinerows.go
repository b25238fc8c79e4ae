//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"time"

	"github.com/surgetank/surgetank/test/kit/client"
)

// canShape returns an error if this machine lacks something for a virtual machine with a bad
// network.
func canShape() error {
	_, err := exec.LookPath("tc")
	if err != nil {
		err = fmt.Errorf("needs tc: run scripts/deps-faults.sh (root on Debian): %w", err)
	}
	return errors.Join(canBoot(), err)
}

// beginMachine boots a machine with ext4 on the host's own disk and starts queues and clients.
func (r *run) beginMachine(ctx context.Context) (*machine, error) {
	m, err := r.machine(ctx, "ext4", r.dir)
	if err != nil {
		return nil, err
	}
	if err := m.start(ctx); err != nil {
		return nil, err
	}
	if err := r.declare(ctx); err != nil {
		return nil, err
	}
	r.startLoad(ctx, guestLoad, r.server.URL)
	if !r.progress(ctx, 20, 60*time.Second) {
		return nil, errors.New("nothing was confirmed for 60 s in a machine that is whole")
	}
	return m, nil
}

// jumps are orders for the machine's clock.
var jumps = []struct {
	name string
	form url.Values
}{
	{"an hour ahead", url.Values{"add": {"3600"}}},
	{"two hours back", url.Values{"add": {"-7200"}}},
	{"to 1970", url.Values{"set": {"1000"}}},
	{"to 2038, behind the end of 32 bits", url.Values{"set": {"2147500000"}}},
	{"back to today", url.Values{}},
}

// A change of the clock must not affect these times. Each kind of message has its own queue.
const (
	jumpDelay = 6 * time.Second // delay of delayed messages
	jumpLate  = 20 * time.Second
	jumpTTL   = "10m"
)

// clockJumps sets the clock of a machine under load. Delays and leases must last as long as
// specified, measured by the host's clock, and nothing may expire early. After a power cut the
// machine's clock is right again, and everything must be there.
func clockJumps(ctx context.Context, r *run) error {
	m, err := r.beginMachine(ctx)
	if err != nil {
		return err
	}
	c := r.client()
	c.Timeout, c.foreign = 10*time.Second, true
	defer c.Close()
	for _, q := range []string{"delayed", "mortal", "held"} {
		if err := c.Declare(ctx, q, `{"dedup":{"window":"30m"}}`); err != nil {
			return err
		}
	}
	strobe := 0
	for i := range r.times(len(jumps), 10*len(jumps)) {
		jump := jumps[i%len(jumps)]
		if len(jump.form) == 0 {
			jump.form = url.Values{"set": {fmt.Sprint(time.Now().Unix())}}
		}
		if err := r.oneJump(ctx, m, c, jump.name, jump.form); err != nil {
			return err
		}
		if i%len(jumps) == 1 { // set the clock forward and back, many times
			for range 20 {
				strobe++
				form := url.Values{"add": {fmt.Sprint(7200 * (1 - 2*(strobe%2)))}}
				if err := m.order(ctx, "/clock", form); err != nil {
					return err
				}
			}
		}
		if i%len(jumps) == 3 {
			r.inject("power cut with the clock in 2038")
			r.server.Kill()
			if err := m.start(ctx); err != nil {
				return r.noStart(err, "a power cut of a machine whose clock had been set")
			}
		}
	}
	r.injected += strobe
	return m.end(ctx)
}

// oneJump sets the clock while delays and leases are running.
func (r *run) oneJump(ctx context.Context, m *machine, c *caller, name string, form url.Values) error {
	const n = 5
	publish := func(queue, members string) (from, to time.Duration, err error) {
		var lines string
		for i := range n {
			lines += fmt.Sprintf("{\"body\":\"%s %d\"%s}\n", name, i, members)
		}
		a := c.Do(ctx, "POST", "/v1/queues/"+queue+"/messages", "application/x-ndjson", []byte(lines), 0)
		if err := a.Err(); err != nil {
			return 0, 0, fmt.Errorf("publishing to %s: %w", queue, err)
		}
		return r.journal.At(a.Call), r.journal.At(a.Back), nil
	}
	if _, _, err := publish("held", ""); err != nil {
		return err
	}
	held, err := take(ctx, c, "held", n, 40*time.Second)
	if err != nil || len(held) != n {
		return fmt.Errorf("%d of %d messages were leased: %w", len(held), n, err)
	}
	if _, _, err := publish("mortal", fmt.Sprintf(`,"ttl":%q`, jumpTTL)); err != nil {
		return err
	}
	from, to, err := publish("delayed", fmt.Sprintf(`,"delay":%q`, jumpDelay))
	if err != nil {
		return err
	}
	r.inject("the clock set " + name)
	if err := m.order(ctx, "/clock", form); err != nil {
		return err
	}
	confirmed := r.load.confirmed.Load()
	// Delayed messages must be delivered at the right time, not at once and not an hour later.
	for got := 0; got < n; {
		ds, err := take(ctx, c, "delayed", n, 60*time.Second)
		if err != nil {
			return err
		}
		now := r.journal.Now()
		if len(ds) > 0 && now < from+jumpDelay {
			r.fail("delay", "with the clock set %s a message that was delayed by %v came after at most %v", name, jumpDelay, now-from)
		}
		got += len(ds)
		if err := settleAll(ctx, c, "delayed", ds); err != nil {
			return err
		}
		if now > to+jumpDelay+jumpLate {
			r.fail("delay", "with the clock set %s only %d of %d messages with a delay of %v came within %v", name, got, n, jumpDelay, now-to)
			break
		}
		if err := r.sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	// A message with a TTL of minutes must still exist, and a lease must still be live.
	alive, err := take(ctx, c, "mortal", n, 60*time.Second)
	if err != nil {
		return err
	}
	if len(alive) != n {
		r.fail("expiry", "with the clock set %s only %d of %d messages with a TTL of %s are there after seconds", name, len(alive), n, jumpTTL)
	}
	if err := settleAll(ctx, c, "mortal", alive); err != nil {
		return err
	}
	if lost, err := take(ctx, c, "held", n, time.Second); err != nil || len(lost) > 0 {
		r.fail("lease", "with the clock set %s %d messages were handed out again though leased: %v", name, len(lost), err)
	}
	if r.journal.Now() < to+35*time.Second { // the machine may have been too slow for the lease
		if err := settleAll(ctx, c, "held", held); err != nil {
			r.fail("lease", "with the clock set %s: %v", name, err)
		}
	}
	if r.load.confirmed.Load() == confirmed && !r.progress(ctx, 1, 30*time.Second) {
		r.fail("progress", "nothing was confirmed for 30 s after the clock was set %s", name)
	}
	return nil
}

// take leases messages without the journal, because the checkers know only the usual queues. It
// returns the receipts.
func take(ctx context.Context, c *caller, queue string, most int, lease time.Duration) (receipts []string, err error) {
	list, a := c.Receive(ctx, queue, most, 0, lease)
	if err := a.Err(); err != nil {
		return nil, fmt.Errorf("receiving from %s: %w", queue, err)
	}
	for _, d := range list {
		receipts = append(receipts, d.Receipt)
	}
	return receipts, nil
}

// settleAll acks receipts. It returns an error if the server refused one.
func settleAll(ctx context.Context, c *caller, queue string, receipts []string) error {
	if len(receipts) == 0 {
		return nil
	}
	results, a := c.Settle(ctx, "ack", queue, receipts, "")
	if err := a.Err(); err != nil {
		return fmt.Errorf("acking on %s: %w", queue, err)
	}
	for _, x := range results {
		if x.Outcome != client.Done {
			return fmt.Errorf("an ack on %s was refused: %s", queue, x.Code)
		}
	}
	return nil
}

// networks are settings of the kernel's network emulator for packets from the machine, as arguments
// of tc-netem.
var networks = []string{
	"netem delay 60ms 50ms",
	"netem loss 20%",
	"netem delay 20ms reorder 50% duplicate 20%",
	"netem delay 30ms 25ms loss 8% duplicate 5% reorder 20% corrupt 2%",
}

// guestNetwork delays, drops, doubles, damages and reorders packets. TCP corrects these faults. The
// clients only see slow calls, and calls without an answer.
func guestNetwork(ctx context.Context, r *run) error {
	m, err := r.beginMachine(ctx)
	if err != nil {
		return err
	}
	for i := range r.times(len(networks), 10*len(networks)) {
		as := networks[i%len(networks)]
		r.inject(as)
		if err := m.order(ctx, "/net", url.Values{"as": {as}}); err != nil {
			return err
		}
		if !r.progress(ctx, 60, 60*time.Second) {
			r.fail("progress", "with %s fewer than 60 messages were confirmed in 60 s", as)
		}
		for try := 0; ; try++ { // the order itself uses the bad network
			err := m.order(ctx, "/net", url.Values{"as": {"pfifo_fast"}})
			if err == nil {
				break
			}
			if try == 5 {
				return err
			}
		}
	}
	return m.end(ctx)
}
