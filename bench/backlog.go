package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/test/kit/proc"
)

// benchBacklog measures the cost of waiting messages: memory, and the time from the start of a
// process to the first delivery, after a clean stop and after kill -9. The broker runs in a child
// process, so its memory is measured alone.
func benchBacklog(r *report, dir string) error {
	r.head("Backlog, 256 B a message", "RSS of the broker's process over that of one with an empty queue; first delivery from process start")
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, m := range strings.Split(*flagMill, ",") {
		millions, err := strconv.Atoi(m)
		if err != nil {
			return fmt.Errorf("-millions: %w", err)
		}
		sub := filepath.Join(dir, m)
		empty, err := child(self, sub, "fill 0")
		if err != nil {
			return err
		}
		filled, err := child(self, sub, fmt.Sprintf("fill %d", millions*1_000_000))
		if err != nil {
			return err
		}
		n := float64(millions) * 1e6
		r.row(row{fmt.Sprintf("%d million waiting: RSS a message after filling", millions), fmt.Sprintf("%.1f B", (filled.rss-empty.rss)/n), "48 B", fmt.Sprintf("%.0f MB in all", filled.rss/1e6)})
		clean, err := child(self, sub, "kill")
		if err != nil {
			return err
		}
		r.row(row{fmt.Sprintf("%d million waiting: first delivery after a clean stop", millions), fmt.Sprintf("%.2f s", clean.first), "2 s", ""})
		r.row(row{fmt.Sprintf("%d million waiting: RSS a message after start", millions), fmt.Sprintf("%.1f B", (clean.rss-empty.rss)/n), "48 B", ""})
		killed, err := child(self, sub, "drain")
		if err != nil {
			return err
		}
		r.row(row{fmt.Sprintf("%d million waiting: first delivery after kill -9 while publishing", millions), fmt.Sprintf("%.2f s", killed.first), "2 s", ""})
		r.row(row{fmt.Sprintf("%d million waiting: drain with 4 consumers and acks", millions), rate(killed.rate), "", ""})
		if err := os.RemoveAll(sub); err != nil {
			return err
		}
	}
	return nil
}

type childResult struct{ rss, first, rate float64 }

// child runs one step in a separate process and reads its figures.
func child(self, dir, step string) (res childResult, err error) {
	cmd := exec.Command(self, append([]string{"start-child", dir}, strings.Fields(step)...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return res, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return res, err
	}
	killed := false
	for sc := bufio.NewScanner(out); sc.Scan(); {
		name, value, _ := strings.Cut(sc.Text(), " ")
		v, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "first":
			res.first = time.Since(start).Seconds()
		case "rss":
			res.rss = v
		case "rate":
			res.rate = v
		case "kill-me":
			killed = true
			if err := cmd.Process.Kill(); err != nil {
				return res, err
			}
		}
	}
	if err := cmd.Wait(); err != nil && !killed {
		return res, fmt.Errorf("child %q: %w", step, err)
	}
	return res, nil
}

// startChild runs one step in the child process. os.Args[3] names the step.
func startChild(dir string) {
	if err := childStep(dir, os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench child:", err)
		os.Exit(1)
	}
}

func childStep(dir string, step []string) error {
	debug.SetGCPercent(20) // as `surgetank serve` with millions of waiting messages
	b, err := open(dir)
	if err != nil {
		return err
	}
	switch step[0] {
	case "fill":
		n, err := strconv.Atoi(step[1])
		if err != nil {
			return err
		}
		if err := fill(b, n, random(256)); err != nil {
			return err
		}
		fmt.Println("rss", rss())
		return b.Close()
	case "kill":
		if err := firstDelivery(b); err != nil {
			return err
		}
		fmt.Println("rss", rss())
		if err := fill(b, 100_000, random(256)); err != nil { // more entries to replay
			return err
		}
		fmt.Println("kill-me")
		select {}
	case "drain":
		if err := firstDelivery(b); err != nil {
			return err
		}
		return drain(b)
	}
	return fmt.Errorf("unknown step %q", step)
}

// fill publishes n messages in batches.
func fill(b *embedded.Broker, n int, body []byte) error {
	const batch = 500
	window := make(chan error, 8)
	for range cap(window) {
		window <- nil
	}
	queues := []string{"q"}
	for i := 0; i < n; i += batch {
		if err := <-window; err != nil {
			return err
		}
		msgs := make([]surgetank.Publishing, min(batch, n-i))
		for j := range msgs {
			msgs[j] = surgetank.Publishing{Queues: queues, Message: surgetank.Message{Body: body}}
		}
		if err := b.PublishAsync(ctx, msgs, func(_ []surgetank.PublishResult, err error) { window <- err }); err != nil {
			return err
		}
	}
	for range cap(window) {
		if err := <-window; err != nil {
			return err
		}
	}
	return nil
}

func firstDelivery(b *embedded.Broker) error {
	ds, err := b.Receive(ctx, "q", surgetank.ReceiveOptions{Max: 1, Wait: time.Minute})
	if err == nil && len(ds) == 0 {
		err = errors.New("no message came")
	}
	if err != nil {
		return err
	}
	fmt.Println("first")
	_, err = b.Settle(ctx, []surgetank.Settlement{{Receipt: ds[0].Receipt, Op: surgetank.Nack}})
	return err
}

func drain(b *embedded.Broker) error {
	info, err := b.Queue(ctx, "q")
	if err != nil {
		return err
	}
	left := info.Ready
	var wg sync.WaitGroup
	wg.Add(int(left))
	start := time.Now()
	for range 4 {
		if _, err := consume(b, 1000, func([]byte) { wg.Done() }); err != nil {
			return err
		}
	}
	wg.Wait()
	fmt.Println("rate", float64(left)/time.Since(start).Seconds())
	return b.Close()
}

// rss returns the resident memory of this process in bytes. No collection is forced, so garbage
// counts, too.
func rss() float64 {
	if n := proc.RSS(os.Getpid()); n > 0 {
		return float64(n)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.Sys)
}
