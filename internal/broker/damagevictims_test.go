package broker

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/queue"
)

// TestVictims checks that the directories to be damaged contain the features that the comments of
// their histories list. It also checks that each directory has a feature of its own.
func TestVictims(t *testing.T) {
	for _, v := range victims(t) {
		names, err := v.disk.List(dataDir)
		if err != nil {
			t.Fatal(err)
		}
		kinds, last := map[queue.Kind]int{}, uint64(0)
		if err := disklog.Inspect(whole(v.disk), dataDir, true, func(e disklog.EntryInfo) error {
			last = uint64(e.Offset)
			return queue.Records(e.Data, func(_ queue.EntryHeader, r *queue.Record) error { kinds[r.Kind]++; return nil })
		}); err != nil {
			t.Fatal(err)
		}
		var snaps, unfinished, segments int
		for _, name := range names {
			switch damageKind(name) {
			case ".snap":
				snaps++
			case ".seg":
				segments++
			case ".snap.tmp", ".spare.tmp":
				unfinished++
			}
		}
		newest, closing := v.newest(t), fmt.Sprintf("%020d.snap", last)
		switch _, how, _ := strings.Cut(v.name, "/"); how {
		case "closed":
			if newest != closing || snaps != 2 || unfinished != 0 {
				t.Errorf("%s has %v, want two snapshots, the newest of them %s, and nothing unfinished", v.name, names, closing)
			}
		case "killed":
			if newest == closing || snaps != 2 || unfinished != 2 || len(v.truth.unsure) != 2 {
				t.Errorf("%s has %v, want two older snapshots, one that is half made, and half a reserve", v.name, names)
			}
		default:
			if snaps != 0 || unfinished != 0 {
				t.Errorf("%s has %v, want no snapshots", v.name, names)
			}
		}
		for k := recEnqueued; v.small && k <= recLast; k++ {
			if kinds[k] == 0 && k != recEpoch && (k != queue.KindMoved || v.snapshots) { // moving messages needs snapshots
				t.Errorf("%s has no record of kind %d: %v", v.name, k, kinds)
			}
		}
		if v.small && kinds[recFailed] == 0 {
			t.Errorf("%s has no message that came back for a reason: %v", v.name, kinds)
		}
		if v.small && v.snapshots && names[slices.IndexFunc(names, func(n string) bool { return filepath.Ext(n) == ".seg" })] == "0000000000000001.seg" {
			t.Errorf("%s has %v, want the first segment trimmed", v.name, names)
		}
		if segments < 3 {
			t.Errorf("%s has %v, want a sealed segment, one that is written, and one that is next", v.name, names)
		}
	}
}
