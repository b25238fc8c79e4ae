//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// faultNumbers are the first and the last number of each letter in the list of faults.
var faultNumbers = []struct {
	letter      string
	first, last int
}{{"P", 1, 7}, {"D", 8, 18}, {"C", 19, 25}, {"B", 26, 29}, {"T", 30, 30}, {"R", 31, 34}, {"N", 35, 43}, {"K", 44, 49}, {"A", 50, 54}}

// TestFaultTable checks docs/faults.md. Each number of the list must name a scenario or a test that
// exists. Each scenario of the campaign must be listed.
func TestFaultTable(t *testing.T) {
	b, err := os.ReadFile("../../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, s := range scenarios {
		known[s.id] = true
	}
	rowName, testName := regexp.MustCompile("row `([^`]+)`"), regexp.MustCompile("`([a-z/]+) (Test[A-Za-z0-9]+)`")
	named, numbers := map[string]bool{}, map[string]int{}
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(line, "|")
		if len(cells) != 7 || strings.HasPrefix(line, "|---") || strings.TrimSpace(cells[1]) == "number" {
			continue
		}
		number, by := strings.TrimSpace(cells[1]), cells[4]
		numbers[number]++
		rows, tests := rowName.FindAllStringSubmatch(by, -1), testName.FindAllStringSubmatch(by, -1)
		for _, m := range rows {
			if named[m[1]] = true; !known[m[1]] {
				t.Errorf("%s: the campaign has no row %s", number, m[1])
			}
		}
		for _, m := range tests {
			if !hasTest(t, m[1], m[2]) {
				t.Errorf("%s: there is no %s in %s", number, m[2], m[1])
			}
		}
		if len(rows)+len(tests) == 0 && !(strings.HasPrefix(number, "K") && strings.TrimSpace(by) == "comes with the cluster") {
			t.Errorf("%s has neither a row nor a test", number)
		}
	}
	for _, f := range faultNumbers {
		for n := f.first; n <= f.last; n++ {
			if id := fmt.Sprintf("%s%d", f.letter, n); numbers[id] != 1 {
				t.Errorf("%s is in the table %d times", id, numbers[id])
			}
		}
	}
	for id := range known {
		if !named[id] {
			t.Errorf("the campaign's row %s is not in docs/faults.md", id)
		}
	}
}

// hasTest searches for a test function in a package's directory.
func hasTest(t *testing.T, pkg, name string) bool {
	files, err := filepath.Glob(filepath.Join("../..", pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
