package sink

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRelativePathsBecomeAbsolute(t *testing.T) {
	data, here := t.TempDir(), t.TempDir()
	t.Chdir(here)
	sqlite := func(path string) Spec { return Spec{Kind: "sqlite", Address: path} }
	for in, want := range map[string]string{
		"x.db": filepath.Join(data, "x.db"), "a/../b/x.db": filepath.Join(data, "b/x.db"), "../x.db": filepath.Join(filepath.Dir(data), "x.db"),
		filepath.Join(here, "x.db"): filepath.Join(here, "x.db"), ":memory:": ":memory:",
	} {
		if got, err := sqlite(in).absolute(data); err != nil || got.Address != want {
			t.Errorf("%s became %s, %v; want %s", in, got.Address, err, want)
		}
	}
	if got, err := (Spec{Kind: "postgres", Address: "host=x"}).absolute(data); err != nil || got.Address != "host=x" {
		t.Errorf("a DSN became %s, %v", got.Address, err)
	}

	// Settings of earlier versions: if the file exists in the working directory, it is the sink's.
	if got, err := sqlite("x.db").adopt(data); err != nil || got.Address != filepath.Join(data, "x.db") {
		t.Errorf("without a file in the working directory: %s, %v", got.Address, err)
	}
	if err := os.WriteFile("x.db", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := sqlite("x.db").adopt(data); err != nil || got.Address != filepath.Join(cwd, "x.db") {
		t.Errorf("with a file in the working directory: %s, %v", got.Address, err)
	}

	// If a settings file is applied again, its relative path means the stored path.
	for in, want := range map[string]string{"x.db": "/old/d/x.db", "d/x.db": "/old/d/x.db", "./d//x.db": "/old/d/x.db", "y.db": "y.db", "e/x.db": "e/x.db", "/x.db": "/x.db"} {
		if got := sqlite(in).Beside(sqlite("/old/d/x.db")).Address; got != want {
			t.Errorf("%s beside /old/d/x.db is %s, want %s", in, got, want)
		}
	}
}
