package broker

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/surgetank/surgetank/internal/queue"
)

// tally counts the outcomes of damages to one kind of file.
type tally struct {
	flips, cuts, others, refused, reported, harmless, repaired int
	missing, bodies, facts, madeUp, tails                      int
}

// campaign is a run of many damages.
type campaign struct {
	mu       sync.Mutex
	counts   map[string]*tally
	failures int
	next     atomic.Int64
	begun    time.Time
}

// try does one damage and judges the outcome. If repair is set or the damage was detected, it also
// repairs the directory.
func (c *campaign) try(t testing.TB, d damage, repair bool) (err error) {
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(trialFailure)
			if !ok {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
				return
			}
			err = f
		}
	}()
	v := d.victim
	disk := whole(v.disk)
	if err := d.do(disk); err != nil {
		return err
	}
	got, err := v.judge(t, whole(disk))
	if err != nil {
		return err
	}
	var loss *queue.RepairReport
	if repair = repair || got != harmless; repair {
		if loss, err = v.repaired(t, disk, got != harmless); err != nil {
			return fmt.Errorf("%w (detected: %v)", err, got != harmless)
		}
	}
	switch d.kind() {
	case ".seg", ".state":
	case ".snap":
		if loss != nil && !loss.Whole() {
			return fmt.Errorf("the older snapshot and the log behind it are whole, and repair reports: %s", strings.Join(loss.Lines(), "; "))
		}
	default:
		if got != harmless {
			return fmt.Errorf("the file holds nothing, and the damage is not harmless")
		}
	}
	c.count(d, got, loss)
	return nil
}

func (c *campaign) count(d damage, got outcome, loss *queue.RepairReport) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := d.victim.name + " " + d.kind()
	if c.counts[key] == nil {
		c.counts[key] = &tally{}
	}
	n := c.counts[key]
	switch d.what {
	case "flip":
		n.flips++
	case "cut":
		n.cuts++
	default:
		n.others++
	}
	switch got {
	case refused:
		n.refused++
	case reported:
		n.reported++
	default:
		n.harmless++
	}
	if loss == nil {
		return
	}
	n.repaired++
	n.facts += loss.Unknown
	for _, q := range loss.Queues {
		n.missing += int(spread(q.Missing))
		n.bodies += int(spread(q.Bodies))
		if q.MadeUp {
			n.madeUp++
		}
		if q.Skipped > 0 {
			n.tails++
		}
	}
}

// run tries all damages on one goroutine for each processor.
func (c *campaign) run(t *testing.T, all []damage, share int, progress bool) {
	const shown = 40
	t.Run("run", func(t *testing.T) {
		for w := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint("worker ", w), func(t *testing.T) {
				t.Parallel()
				tb := &trialT{TB: t}
				for {
					i := int(c.next.Add(1)) - 1
					if i >= len(all) {
						return
					}
					if err := c.try(tb, all[i], i%share == 0); err != nil {
						c.mu.Lock()
						if c.failures++; c.failures <= shown {
							t.Errorf("%s: %v\n    again with: go test ./internal/broker -run EveryDamage -only %s", all[i], err, all[i])
						}
						c.mu.Unlock()
					}
					if progress && i%5000 == 4999 {
						c.mu.Lock()
						fmt.Fprintf(os.Stderr, "%d of %d damages, %d failed, %s\n", i+1, len(all), c.failures, time.Since(c.begun).Round(time.Second))
						c.mu.Unlock()
					}
				}
			})
		}
	})
	if c.failures > shown {
		t.Errorf("%d damages failed in all", c.failures)
	}
}

// trialFailure is the panic value that ends the trial of one damage, as FailNow ends a test.
type trialFailure string

func (f trialFailure) Error() string { return string(f) }

// trialT makes a failure of the rig end one trial and not the whole test.
type trialT struct{ testing.TB }

func (t *trialT) Helper()                   {}
func (t *trialT) Fatal(args ...any)         { panic(trialFailure(fmt.Sprint(args...))) }
func (t *trialT) Fatalf(f string, a ...any) { panic(trialFailure(fmt.Sprintf(f, a...))) }

// table prints the counts, one line for each directory and kind of file.
func (c *campaign) table(t *testing.T) (sum tally) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "directory\tfile\tflips\tcuts\tothers\trefused\treported\tharmless\trepaired\tbodies lost\tmissing\tfacts left out\tqueues made up\tunknown tails\t")
	row := func(dir, file string, n *tally) {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", dir, file, n.flips, n.cuts, n.others, n.refused, n.reported,
			n.harmless, n.repaired, n.bodies, n.missing, n.facts, n.madeUp, n.tails)
	}
	keys := make([]string, 0, len(c.counts))
	for k := range c.counts {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		n := c.counts[k]
		dir, file, _ := strings.Cut(k, " ")
		row(dir, file, n)
		sum.flips, sum.cuts, sum.others = sum.flips+n.flips, sum.cuts+n.cuts, sum.others+n.others
		sum.refused, sum.reported, sum.harmless, sum.repaired = sum.refused+n.refused, sum.reported+n.reported, sum.harmless+n.harmless, sum.repaired+n.repaired
		sum.bodies, sum.missing, sum.facts, sum.madeUp, sum.tails = sum.bodies+n.bodies, sum.missing+n.missing, sum.facts+n.facts, sum.madeUp+n.madeUp, sum.tails+n.tails
	}
	row("all", "", &sum)
	w.Flush()
	t.Logf("%d damages in %s\n%s", sum.flips+sum.cuts+sum.others, time.Since(c.begun).Round(time.Second), b.String())
	return sum
}
