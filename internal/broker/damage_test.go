package broker

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/vfs"
)

var (
	damageSamples = flag.Int("samples", 0, "how many bits of each file are flipped, and half as many cuts; 0: a few, and with CI=true hundreds")
	everyBit      = flag.Bool("everybit", false, "damage every bit and cut at every byte of the small directories, not a sample (make damage)")
	onlyDamage    = flag.String("only", "", "one damage alone, as a failure names it, or all of a directory or file that the text begins with")
)

// damage is one change to one file.
type damage struct {
	victim *victim
	file   string
	what   string // flip, cut, zero, swap, copy, remove
	at     int64  // the number of the bit (flip), the new length (cut) or the number of the block (the other kinds)
	with   int64  // swap, copy: number of the other block
}

// String formats the damage as -only expects it.
func (d damage) String() string {
	s := fmt.Sprintf("%s/%s:%s:%d", d.victim.name, d.file, d.what, d.at)
	if d.what == "swap" || d.what == "copy" {
		s += ":" + strconv.FormatInt(d.with, 10)
	}
	return s
}

// named reports whether -only selects this damage. -only names one damage, or a directory or file
// with all its damages.
func (d damage) named(only string) bool {
	return d.String() == only || !strings.Contains(only, ":") && strings.HasPrefix(d.String(), only)
}

func (d damage) kind() string { return damageKind(d.file) }

// damageKind returns the kind of a file, for the table of outcomes.
func damageKind(name string) string {
	ext := filepath.Ext(name)
	switch {
	case ext == "":
		return name
	case ext == ".tmp":
		return filepath.Ext(strings.TrimSuffix(name, ext)) + ext
	}
	return ext
}

const page = 4096

// do applies the damage to the file.
func (d damage) do(disk *vfs.Mem) error {
	path := filepath.Join(dataDir, d.file)
	if d.what == "remove" {
		return disk.Remove(path)
	}
	return disk.Corrupt(path, func(b []byte) []byte {
		block := func(n int64) []byte { return b[n*page : min((n+1)*page, int64(len(b)))] }
		switch d.what {
		case "flip":
			b[d.at>>3] ^= 1 << (d.at & 7)
		case "cut":
			return b[:d.at]
		case "zero":
			clear(block(d.at))
		case "copy":
			copy(block(d.at), block(d.with))
		case "swap":
			x := slices.Clone(block(d.at))
			copy(block(d.at), block(d.with))
			copy(block(d.with), x)
		}
		return b
	})
}

// everyDamage lists the damages of a directory: every bit of every file flipped, and every file cut
// at every length. The exception is long runs of zeros, which fill most of a directory: space that
// was never written, and padding of pages. The first and last 64 bytes of a run are damaged
// completely, because a reader that ends too late or too early reads these bytes. Inside a run,
// each 8 bytes get one flipped bit and one cut. This covers each position where a frame could
// begin, with changing bits. skipped counts the damages left out.
//
// In addition, every page is zeroed, copied over the other pages of its file and exchanged with
// them, and every file is removed. Pages of the segment that a killed broker was writing are left
// out, because the loss of its newest page cannot always be detected (docs/format.md).
func (v *victim) everyDamage(t testing.TB) (all []damage, skipped int64) {
	names, err := v.disk.List(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b := readFile(t, v.disk, filepath.Join(dataDir, name))
		zeros := inZeros(b)
		for at := range b {
			d := damage{victim: v, file: name, what: "flip"}
			if zeros[at] {
				skipped += 9
				if at%8 != 0 {
					continue
				}
				skipped -= 2
				d.at = int64(at)*8 + int64(at/8%64) // a bit of this byte or of one of the next seven bytes
				all = append(all, d)
			} else {
				for bit := range 8 {
					d.at = int64(at*8 + bit)
					all = append(all, d)
				}
			}
			d.what, d.at = "cut", int64(at)
			all = append(all, d)
		}
		all = append(all, damage{victim: v, file: name, what: "remove"})
		if name == v.written {
			continue
		}
		pages := int64(len(b)+page-1) / page
		for p := range pages {
			all = append(all, damage{victim: v, file: name, what: "zero", at: p})
			for q := range pages {
				if p != q {
					all = append(all, damage{victim: v, file: name, what: "copy", at: p, with: q})
				}
				if p < q {
					all = append(all, damage{victim: v, file: name, what: "swap", at: p, with: q})
				}
			}
		}
	}
	return all, skipped
}

// inZeros returns, for each byte, whether it is inside a long run of zeros and not near the run's
// ends.
func inZeros(b []byte) []bool {
	const edge = 64
	in := make([]bool, len(b))
	for from := 0; from < len(b); {
		to := from
		for to < len(b) && b[to] == 0 {
			to++
		}
		for i := from + edge; i < to-edge; i++ {
			in[i] = true
		}
		from = to + 1
	}
	return in
}

// sample draws some damages of each file. Most are in bytes that are not zero. A large sample
// contains all damages to pages.
func sample(rng *rand.Rand, all []damage, bits int) (some []damage) {
	for _, d := range all {
		if bits >= 100 && d.victim.small && d.what != "flip" && d.what != "cut" {
			some = append(some, d)
		}
	}
	for len(all) > 0 {
		n := slices.IndexFunc(all, func(d damage) bool { return d.file != all[0].file })
		if n < 0 {
			n = len(all)
		}
		draws := 1 + bits/8
		if k := all[0].kind(); k == ".seg" || k == ".snap" {
			draws = bits + bits/2
		}
		for range draws {
			some = append(some, all[rng.IntN(n)])
		}
		all = all[n:]
	}
	return some
}

// TestEveryDamage flips bits and cuts files everywhere in the directories of stopped brokers.
// Either the opening fails and names the file. Or the broker has the whole state, delivers the
// intact messages and names the damaged ones. It never delivers wrong bytes and never omits a
// message silently. A repaired directory opens, and repair lists every message that is not
// delivered afterwards. With -everybit, every bit and every length of the small directories is
// damaged.
func TestEveryDamage(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(300)) // most memory of a trial is garbage when it ends
	bits := *damageSamples
	if bits == 0 {
		if bits = 6; os.Getenv("CI") == "true" && !testing.Short() {
			bits = 100
		}
	}
	c := &campaign{counts: map[string]*tally{}, begun: time.Now()}
	rng := rand.New(rand.NewPCG(1, 2))
	var all []damage
	var skipped int64
	for _, v := range victims(t) {
		if err := c.try(&trialT{t}, damage{victim: v, file: "log.state", what: "nothing"}, true); err != nil {
			t.Fatalf("%s, undamaged: %v", v.name, err)
		}
		list, left := v.everyDamage(t)
		switch {
		case *onlyDamage != "":
			list = slices.DeleteFunc(list, func(d damage) bool { return !d.named(*onlyDamage) })
		case *everyBit && !v.small:
			continue
		case *everyBit:
			skipped += left
		default:
			list = sample(rng, list, bits)
		}
		all = append(all, list...)
	}
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	c.run(t, all, 6, len(all) > 20_000)
	sum := c.table(t)
	if *onlyDamage != "" {
		return
	}
	if *everyBit {
		t.Logf("%d bits and lengths within runs of zeros were left out", skipped)
	}
	for what, n := range map[string]int{"refused": sum.refused, "reported": sum.reported, "repaired": sum.repaired, "bodies lost": sum.bodies,
		"messages missing": sum.missing, "facts left out": sum.facts, "queues made up": sum.madeUp, "unknown tails": sum.tails} {
		if n == 0 {
			t.Errorf("%s: none, so the test tests nothing", what)
		}
	}
}
