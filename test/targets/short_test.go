//go:build linux

package main

import (
	"os"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/pgtest"
	"github.com/surgetank/surgetank/test/kit/namespace"
)

// TestMain runs the tests in a mount namespace if possible.
func TestMain(m *testing.M) {
	_ = namespace.Own(0) // without a namespace no disk is filled
	os.Exit(m.Run())
}

// shortRows are the actions whose rounds go test runs, each with the first seed that draws the
// action. The campaign uses other seeds.
var shortRows = []string{"failover", "restore dump", "restore directory", "stopped copy beside", "file deleted", "migrate numeric",
	"partition missing", "statements time out", "second server"}

// TestShort runs one round of each kind of event against a real server. With -short it runs a
// single round.
func TestShort(t *testing.T) {
	if _, err := pgtest.Find(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED:", err)
	}
	c := &campaign{limit: 2 * time.Minute}
	done, err := c.prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(done)
	for i, row := range shortRows {
		if testing.Short() && i > 0 {
			break
		}
		t.Run(row, func(t *testing.T) {
			p := plans(1, 1, row)[0]
			if r := c.one(t.Context(), p); !r.ok() {
				t.Error(r.failure())
			}
		})
	}
}
