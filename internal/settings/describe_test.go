package settings_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/internal/msgopt"
	"github.com/surgetank/surgetank/internal/settings"
)

var update = flag.Bool("update", false, "write the tables in the documentation anew")

// docs/configuration.md contains the tables of settings and of message options unchanged.
func TestDocumentation(t *testing.T) {
	const file = "../../docs/configuration.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	for name, table := range map[string]string{"settings": settings.Markdown(), "options": msgopt.Markdown()} {
		begin, end := "<!-- "+name+": written by `go test ./internal/settings -update` -->\n", "<!-- end of "+name+" -->\n"
		before, rest, ok1 := strings.Cut(want, begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok1 || !ok2 {
			t.Fatalf("%s has no place for the %s between %q and %q", file, name, begin, end)
		}
		want = before + begin + table + end + after
	}
	if want == string(text) {
		return
	}
	if !*update {
		t.Fatalf("%s does not contain the present tables; run go test ./internal/settings -update", file)
	}
	if err := os.WriteFile(file, []byte(want), 0o666); err != nil {
		t.Fatal(err)
	}
}
