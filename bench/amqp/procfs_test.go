//go:build linux

package main

import (
	"bufio"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestParseStat(t *testing.T) {
	s, ok := parseStat("17 (a) b (c) S 4 17 17 0 -1 4194304 100 200 0 0 250 150 30 70 20 0 1 0 99")
	if want := (procStat{parent: 4, state: 'S', cpu: 5}); !ok || s != want {
		t.Errorf("got %+v, %v; want %+v", s, ok, want)
	}
	for _, bad := range []string{"", "17 (a", "17 (a) S", "17 (a) S x 17 17 0 -1 4194304 100 200 0 0 250 150 30 70", "17 (a) S 4 17 17 0 -1 4194304 100 200 0 0 250 150 30 x"} {
		if _, ok := parseStat(bad); ok {
			t.Errorf("%q was accepted as a line of a process", bad)
		}
	}
}

// TestTreeHoldsGrandchildren starts a shell that starts a process, as RabbitMQ's script starts
// Erlang.
func TestTreeHoldsGrandchildren(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 600 & echo started; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "started\n" {
		t.Fatalf("the shell said %q, %v", line, err)
	}
	tree := processTree(os.Getpid())
	if !slices.Contains(tree, cmd.Process.Pid) || len(processTree(cmd.Process.Pid)) != 2 {
		t.Errorf("from %d: %v; from the shell %d: %v; want the shell with one child", os.Getpid(), tree, cmd.Process.Pid, processTree(cmd.Process.Pid))
	}
	if treePSS(cmd.Process.Pid) <= 0 {
		t.Error("the tree uses no memory")
	}
	killAll(processTree(cmd.Process.Pid))
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the shell ended with %v, want killed", err)
	}
	if alive(cmd.Process.Pid) {
		t.Error("alive returns true for a process that has ended")
	}
}

func TestOwnFiguresMove(t *testing.T) {
	before := treeCPU(os.Getpid())
	for own := ownCPU(); ownCPU()-own < 0.05; { // the counter's step is 10 ms
	}
	if treeCPU(os.Getpid()) <= before || machineCPU() <= 0 {
		t.Error("CPU time was used and not counted")
	}
}
