//go:build linux

package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank/test/kit/inprocess"
)

// TestEveryWorkloadAgainstAServer runs each workload briefly against Surgetank in this process. It
// checks that the measured events happen, not the figures. It also tests leanConn with real
// traffic.
func TestEveryWorkloadAgainstAServer(t *testing.T) {
	o := &options{warm: 20 * time.Millisecond, backlog: 2000, addr: inprocess.Start(t).AMQP, login: "guest:guest"}
	picked, err := pickTargets(anyServer)
	if err != nil {
		t.Fatal(err)
	}
	for _, lean := range []bool{false, true} {
		useLean = lean
		for _, w := range workloads {
			if lean && w.name != endToEnd && w.name != sync1 {
				continue
			}
			var r result
			for o.secs = 200 * time.Millisecond; o.secs < time.Minute; o.secs *= 4 { // on a busy machine a short measurement can count nothing
				if r, err = measureOne(t.Context(), o, w, picked[0], filepath.Join(t.TempDir(), "server")); err != nil {
					t.Fatalf("%s: %v", w.name, err)
				}
				if r.Messages > 0 && r.P50 > 0 {
					break
				}
			}
			t.Log(w.name, r.line())
			if r.Messages == 0 || r.Rate <= 0 || r.P50 <= 0 || r.P99 < r.P50 {
				t.Errorf("%s (lean %v) measured nothing: %s", w.name, lean, r.line())
			}
			if !strings.HasPrefix(r.Product, "Surgetank") {
				t.Errorf("the server's product is %q", r.Product)
			}
			if w.name == backlog2m && (r.Messages != 2000 || r.More[moreLost] != 0 || r.More[moreDuplicates] != 0 || r.More[moreDrain] <= 0) {
				t.Errorf("of 2000 messages of the backlog: %s", r.line())
			}
		}
	}
	useLean = false
}

func TestAbsentServersAreNamed(t *testing.T) {
	o := &options{rabbitmq: filepath.Join(t.TempDir(), "rabbitmq-server")}
	for name, want := range map[string]string{classic: "Debian package rabbitmq-server", anyServer: "-addr"} {
		picked, err := pickTargets(name)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "server")
		if _, err := picked[0].launch(t.Context(), o, dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want a message that names %q", name, err, want)
		}
	}
	if _, err := pickTargets("rabbit"); err == nil || !strings.Contains(err.Error(), quorum) {
		t.Errorf("an unknown target: %v; want the known ones", err)
	}
	if _, err := pickWorkloads("e2"); err == nil || !strings.Contains(err.Error(), endToEnd5k) {
		t.Errorf("an unknown workload: %v; want the known ones", err)
	}
}
