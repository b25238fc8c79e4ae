package disklog

import (
	"path/filepath"
	"testing"
)

// TestRepairOfASmallLogIsSmall: a repaired log is about as large as its source. It does not use the
// segment size of a new log.
func TestRepairOfASmallLogIsSmall(t *testing.T) {
	disk, _ := sample(t, 7, true)
	size := func(dir string) (total int) {
		names, err := disk.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			total += len(contentsOf(t, disk, filepath.Join(dir, name)))
		}
		return total
	}
	if _, err := Repair(disk, "data", "repaired"); err != nil {
		t.Fatal(err)
	}
	if from, to := size("data"), size("repaired"); to > 2*from {
		t.Errorf("a log of %d bytes takes %d after repair", from, to)
	}
}
