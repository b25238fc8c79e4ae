package settings

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of settings in the documentation anew")

// The table in the documentation is up to date.
func TestDocumentation(t *testing.T) {
	const (
		file  = "../../docs/configuration.md"
		begin = "<!-- settings: written by `go test ./internal/settings -update` -->\n"
		end   = "<!-- end of settings -->\n"
	)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the settings between %q and %q", file, begin, end)
	}
	want := before + begin + Markdown() + end + after
	if want == string(text) {
		return
	}
	if !*update {
		t.Fatalf("%s does not have the settings of Table; run go test ./internal/settings -update", file)
	}
	if err := os.WriteFile(file, []byte(want), 0o666); err != nil {
		t.Fatal(err)
	}
}
