//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/surgetank/surgetank/test/kit/namespace"
	"github.com/surgetank/surgetank/test/kit/proxy"
)

// The faults of this file use the campaign's own network namespace, which has only a loopback. Each
// rule of the packet filter applies to the ports of one server, so a rule affects no parallel run.

// canFilter returns an error if this machine cannot set rules of a packet filter.
var canFilter = sync.OnceValue(func() error {
	if !namespace.Inside() {
		return errors.New("needs root and a network namespace of its own")
	}
	if out, err := exec.Command("nft", "list", "ruleset").CombinedOutput(); err != nil {
		return fmt.Errorf("needs nftables (apt-get install nftables): %w %s", err, out)
	}
	return nil
})

// firewall is a table of rules for the ports of a run's server.
type firewall struct {
	table string
	ports string // in the syntax of an nftables set
}

// firewall makes an empty table. Its rules are removed when it is closed, or with the namespace.
func (r *run) firewall() (*firewall, error) {
	ports := []string{}
	for _, at := range []string{r.server.HTTP(), r.server.AMQP()} {
		if at == "" {
			continue
		}
		_, port, err := net.SplitHostPort(at)
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	f := &firewall{table: "faults_" + strings.ToLower(strings.NewReplacer("-", "_").Replace(r.name)), ports: "{ " + strings.Join(ports, ", ") + " }"}
	return f, f.nft("add table inet %s; add chain inet %s out { type filter hook output priority 0; }", f.table, f.table)
}

func (f *firewall) nft(format string, args ...any) error {
	if out, err := exec.Command("nft", fmt.Sprintf(format, args...)).CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w %s", err, out)
	}
	return nil
}

// toServer and toClients select the packets of a rule.
const (
	toServer  = "dport"
	toClients = "sport"
)

// rule adds a rule: a verdict for matching packets.
func (f *firewall) rule(direction, verdict string) error {
	return f.nft("add rule inet %s out tcp %s %s %s", f.table, direction, f.ports, verdict)
}

// clear removes all rules.
func (f *firewall) clear() error { return f.nft("flush chain inet %s out", f.table) }

func (f *firewall) close() { _ = f.nft("delete table inet %s", f.table) } // the table is removed with the namespace, too

// cuts disconnects the network for a while, in one or both directions, so requests or answers do
// not arrive. The server must lose nothing, store each message once, end leases at their deadline,
// and continue after the network works again.
func cuts(directions ...string) func(ctx context.Context, r *run) error {
	return func(ctx context.Context, r *run) error {
		if err := r.begin(ctx, loadOptions{timeout: 700 * time.Millisecond, amqp: 2, heartbeat: time.Second}); err != nil {
			return err
		}
		f, err := r.firewall()
		if err != nil {
			return err
		}
		defer f.close()
		for k := range r.times(3, 60) {
			if !r.progress(ctx, 40, 10*time.Second) {
				r.fail("progress", "no 40 messages were confirmed within 10 s while the network was whole")
			}
			for _, d := range directions {
				if err := f.rule(d, "drop"); err != nil {
					return err
				}
			}
			r.inject("cut " + strings.Join(directions, " "))
			// Some cuts are shorter than TCP's time-outs. Others are longer than the time-outs of
			// clients and heartbeats.
			err := r.sleep(ctx, []time.Duration{200 * time.Millisecond, 1500 * time.Millisecond, 4 * time.Second}[k%3])
			if err := errors.Join(err, f.clear()); err != nil {
				return err
			}
		}
		if !r.progress(ctx, 40, 15*time.Second) {
			r.fail("progress", "no 40 messages were confirmed within 15 s after the last cut")
		}
		return r.end(ctx)
	}
}

// badNetwork runs the load over a network with one constant fault.
func badNetwork(what string, rules map[string]string, want int64) func(ctx context.Context, r *run) error {
	return func(ctx context.Context, r *run) error {
		if err := r.begin(ctx, loadOptions{timeout: 8 * time.Second, amqp: 2, size: 1500}); err != nil {
			return err
		}
		f, err := r.firewall()
		if err != nil {
			return err
		}
		defer f.close()
		for d, verdict := range rules {
			if err := f.rule(d, verdict); err != nil {
				return err
			}
		}
		r.inject(what)
		began := r.journal.Now()
		if !r.progress(ctx, want*int64(r.times(1, 20)), time.Duration(r.times(25, 500))*time.Second) {
			r.fail("progress", "with %s only %d messages were confirmed in 25 s", what, r.load.confirmed.Load())
		}
		r.note("%d messages were confirmed in %.1f s", r.load.confirmed.Load(), (r.journal.Now() - began).Seconds())
		if err := f.clear(); err != nil {
			return err
		}
		return r.end(ctx)
	}
}

// slowNetwork delays every piece of data by some random milliseconds in both directions. The data
// keeps its order, as in TCP.
func slowNetwork(ctx context.Context, r *run) error {
	p, err := r.behindProxy(ctx, loadOptions{amqp: 2, timeout: 8 * time.Second}, func(p *proxy.Proxy) { p.Delay.Store(int64(60 * time.Millisecond)) })
	if err != nil {
		return err
	}
	defer p.close()
	r.inject("every piece up to 60 ms later")
	if !r.progress(ctx, int64(r.times(200, 5000)), time.Duration(r.times(25, 600))*time.Second) {
		r.fail("progress", "with delays only %d messages were confirmed", r.load.confirmed.Load())
	}
	p.each(func(p *proxy.Proxy) { p.Delay.Store(0) })
	return r.end(ctx)
}
