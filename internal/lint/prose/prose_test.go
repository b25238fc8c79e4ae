package prose

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWrap wraps each testdata/*.in and compares the result with the .want file. Wrapping the
// result again must not change it.
func TestWrap(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in")
	if err != nil || len(inputs) < 2 {
		t.Fatal(inputs, err)
	}
	for _, name := range inputs {
		wrap := func(s string) string {
			t.Helper()
			var out string
			var err error
			if strings.Contains(name, ".go.") {
				var b []byte
				b, err = WrapGo([]byte(s), 60)
				out = string(b)
			} else {
				out, err = WrapMarkdown(s, 60)
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return out
		}
		in, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(strings.TrimSuffix(name, ".in") + ".want")
		if err != nil {
			t.Fatal(err)
		}
		out := wrap(string(in))
		if out != string(want) {
			t.Errorf("%s became:\n%s", name, out)
		}
		if again := wrap(out); again != out {
			t.Errorf("%s, wrapped twice, became:\n%s", name, again)
		}
	}
}

// FuzzWrapMarkdown: wrapping either fails or keeps the words, and wrapping again changes nothing.
func FuzzWrapMarkdown(f *testing.F) {
	for _, s := range []string{"a b c", "- a\n  b\n\n  c", "> a\n> b", "| a | b |", "1. x\n2. y", "a  \nb", "```\nx\n```", "a\n---\n# b", "* \n*", "`a b` c"} {
		f.Add(s, 12)
	}
	f.Fuzz(func(t *testing.T, s string, width int) {
		width = max(width%120, 1)
		once, err := WrapMarkdown(s, width)
		if err != nil {
			return
		}
		twice, err := WrapMarkdown(once, width)
		if err != nil || twice != once {
			t.Fatalf("%q became %q, and then %q, %v", s, once, twice, err)
		}
	})
}

func TestSameGoSees(t *testing.T) {
	const src = "package p\n\n// one two\nvar x = 1 // three\n"
	for _, other := range []string{
		"package p\n\n// one\nvar x = 1 // three\n",
		"package p\n\n// one two\nvar x = 2 // three\n",
		"package p\n\n// two one\nvar x = 1 // three\n",
		"package p\n\n// one two three\nvar x = 1\n",
	} {
		if sameGo([]byte(src), []byte(other)) == nil {
			t.Errorf("no difference was seen to %q", other)
		}
	}
	if err := sameGo([]byte(src), []byte("package p\n\n// one\n// two\nvar x = 1 // three\n")); err != nil {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	banned, err := ParseBanned("# none of these\nin the end: finally\nwhoever: the caller\n")
	if err != nil {
		t.Fatal(err)
	}
	r := Rules{banned}
	long := strings.Repeat("word\n", MaxWords)
	row := strings.Repeat("word ", MaxWords)
	for text, want := range map[string]int{
		"A short sentence. " + long + "end.":      1,
		long + ".":                                0,
		long + "e.g. more.":                       1,
		"In the\nend Whoever calls it.":           2,
		"`in the end` is code, and winter-ends.":  0,
		"| " + row + "| " + row + "|":             0,
		"| " + row + "one more |":                 1,
		"```\n" + long + long + "\n```":           0,
		strings.Repeat("x", MaxColumns+1):         0,
		"a " + strings.Repeat("x", MaxColumns):    1,
		"[a](" + strings.Repeat("x y ", 50) + ")": 1, // the line is too wide, but the sentence is short
	} {
		if got := r.Check(Markdown(text), 0, true); len(got) != want {
			t.Errorf("%.60q has %d problems, want %d: %v", text, len(got), want, got)
		}
	}
	if _, err := ParseBanned("just a word"); err == nil {
		t.Error("a phrase without a replacement is taken")
	}
}
