package sim

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// sectorBytes is the unit that a disk loses if it lies about a sync.
const sectorBytes = 512

// rot damages a disk on which everything is synced, and opens it. A flipped bit must have no
// effect, or be detected and reported. If a lying disk never wrote a sector, the newest entries may
// be lost, if no later data shows that they existed. The sector must never be read as other data.
func (p *prober) rot(rng *rand.Rand) {
	fs := p.disk.mem.CrashClone(rng, vfs.Crash{Percent: 100})
	fs.SetCapacity(0) // a repair needs room
	names, err := fs.List(dataDir)
	if err != nil || len(names) == 0 {
		return // the directory is not created yet
	}
	whole := p.open(fs.CrashClone(rng, vfs.Crash{Percent: 100}))
	if whole.err != nil {
		return // in the middle of a change; the probes check what a crash leaves here
	}
	whole.read()
	name, h, at := filepath.Join(dataDir, names[rng.IntN(len(names))]), rotten, -1
	if rng.IntN(3) == 0 {
		h = lied
	}
	if err := fs.Corrupt(name, func(b []byte) []byte {
		used := len(b)
		for used > 0 && b[used-1] == 0 { // most of a segment is unused space, where nothing can be wrong
			used--
		}
		if used == 0 {
			return b
		}
		if at = rng.IntN(used); h == lied {
			at -= at % sectorBytes
			clear(b[at:min(at+sectorBytes, len(b))])
		} else {
			b[at] ^= 1 << rng.IntN(8)
		}
		return b
	}); err != nil || at < 0 {
		return
	}
	p.w.tracef("byte %d of %s is changed, harm %d", at, name, h)
	r := p.open(fs.CrashClone(rng, vfs.Crash{Percent: 100}))
	if err = r.err; err == nil {
		r.read()
		r.check(h)
		err = r.damaged
	}
	p.checkRepair(fs, whole, err != nil, h)
	n := &p.w.count
	switch {
	case err == nil && h == lied:
		n.one(SectorsHarmless)
	case err == nil:
		n.one(FlipsHarmless)
	case !errors.Is(err, commitlog.ErrCorrupt) && surgetank.CodeOf(err) != surgetank.CodeCorrupt:
		p.w.ledger.violation("loud", "byte %d of %s was changed, and that is not called damage: %v", at, name, err)
	case !strings.Contains(err.Error(), "data"+string(filepath.Separator)):
		p.w.ledger.violation("loud", "byte %d of %s was changed, and no file is named: %v", at, name, err)
	case h == lied:
		n.one(SectorsDetected)
	default:
		n.one(FlipsDetected)
	}
}
