// Package overlay builds programs and tests from changed copies of this module's source files. The
// files themselves stay unchanged: only the compiler sees the copies, through its flag -overlay.
//
// Three kinds of builds use it: builds with a planted defect (internal/mutant and the campaigns in
// test/), builds with failpoints (internal/failpoint), and builds with other constants.
package overlay

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Edit changes a text of a source file. Old must occur exactly once in the file.
//
// If Before or After is set, Old stays, and the text is inserted before or after Old. Several such
// edits may have the same Old. Otherwise New replaces Old, or is the whole file if Old is empty.
// The file gets an import of each package in Imports.
type Edit struct {
	File, Old, New string // File is a path from the module's root, with slashes
	Before, After  string
	Imports        []string
}

// Root returns the directory of this module's source. It needs the go command.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Module.Dir}}", "github.com/surgetank/surgetank/internal/overlay").Output()
	if err != nil {
		return "", fmt.Errorf("finding the source of surgetank, to build it: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Write writes the changed files into dir and returns the path of the list that go build -overlay
// and go test -overlay need. The names of the files in dir begin with name.
func Write(root, dir, name string, edits []Edit) (string, error) {
	texts, err := Apply(root, edits)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for file, text := range texts {
		changed := filepath.Join(dir, name+"-"+strings.ReplaceAll(file, "/", "-"))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(root, filepath.FromSlash(file))] = changed
	}
	b, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, name+"-overlay.json")
	return list, os.WriteFile(list, b, 0o600)
}

// Apply returns the changed files by their paths. It fails if an old text does not occur exactly
// once in its file, or if two old texts overlap. All such errors are reported together.
func Apply(root string, edits []Edit) (map[string]string, error) {
	texts, byFile := map[string]string{}, map[string][]Edit{}
	for _, e := range edits {
		if e.Old == "" {
			texts[e.File] = e.New
		} else {
			byFile[e.File] = append(byFile[e.File], e)
		}
	}
	var errs []error
	for file, list := range byFile {
		text, whole := texts[file]
		if !whole {
			b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
			if err != nil {
				return nil, err
			}
			text = string(b)
		}
		changed, err := apply(text, list)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, err))
		}
		texts[file] = changed
	}
	return texts, errors.Join(errs...)
}

func apply(text string, edits []Edit) (string, error) {
	type cut struct {
		from, to int
		text     string
	}
	var cuts []cut
	var imports []string
	var errs []error
	for _, e := range edits {
		if n := strings.Count(text, e.Old); n != 1 {
			errs = append(errs, fmt.Errorf("the file has this text %d times, not once; write the change anew: %s", n, e.Old))
			continue
		}
		at := strings.Index(text, e.Old)
		switch end := at + len(e.Old); {
		case e.Before != "" || e.After != "":
			cuts = append(cuts, cut{at, at, e.Before}, cut{end, end, e.After})
		default:
			cuts = append(cuts, cut{at, end, e.New})
		}
		imports = append(imports, e.Imports...)
	}
	slices.SortStableFunc(cuts, func(a, b cut) int { return cmp.Compare(a.from, b.from) })
	slices.Sort(imports)
	var b strings.Builder
	end := 0
	if imports = slices.Compact(imports); len(imports) > 0 {
		end = packageClause.FindStringIndex(text)[1]
		b.WriteString(text[:end])
		for _, path := range imports {
			b.WriteString("; import " + strconv.Quote(path)) // on the same line, so that line numbers do not change
		}
	}
	for _, c := range cuts {
		if c.from < end {
			errs = append(errs, fmt.Errorf("two changes of the file overlap; join them into one: %s", text[c.from:c.to]))
			continue
		}
		b.WriteString(text[end:c.from])
		b.WriteString(c.text)
		end = c.to
	}
	b.WriteString(text[end:])
	return b.String(), errors.Join(errs...)
}

var packageClause = regexp.MustCompile(`(?m)^package \w+`)
