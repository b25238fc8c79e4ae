// Rewrap wraps the comments of Go files and the prose of Markdown files at 100 columns:
//
//	go run ./internal/lint/rewrap internal/queue docs   lists the files that would change
//	go run ./internal/lint/rewrap -w internal/queue     changes them
//
// It walks through directories, except testdata and nested modules. Code, tables, drawings and
// comments at the end of a line of code stay unchanged. If a word, the code or its layout would
// change, the file is reported and left unchanged.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/surgetank/surgetank/internal/lint/prose"
)

func main() {
	write := flag.Bool("w", false, "change the files")
	width := flag.Int("width", 100, "columns")
	flag.Parse()
	failed := false
	for _, root := range flag.Args() {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir():
				return enter(root, path, d.Name())
			}
			if err := wrap(path, *width, *write); err != nil {
				failed = true
				fmt.Fprintf(os.Stderr, "%s: left alone: %v\n", path, err)
			}
			return nil
		})
		if err != nil {
			failed = true
			fmt.Fprintln(os.Stderr, err)
		}
	}
	if failed {
		os.Exit(1)
	}
}

// enter skips directories without prose, and results of benchmarks, which must stay unchanged.
func enter(root, path, name string) error {
	if path == root {
		return nil
	}
	_, err := os.Stat(filepath.Join(path, "go.mod"))
	if err == nil || name == "testdata" || name == "results" || strings.HasPrefix(name, ".") {
		return filepath.SkipDir
	}
	return nil
}

func wrap(path string, width int, write bool) error {
	var wrapped []byte
	src, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	switch filepath.Ext(path) {
	case ".go":
		wrapped, err = prose.WrapGo(src, width)
	case ".md":
		var s string
		s, err = prose.WrapMarkdown(string(src), width)
		wrapped = []byte(s)
	default:
		return nil
	}
	if err != nil || bytes.Equal(src, wrapped) {
		return err
	}
	fmt.Println(path)
	if !write {
		return nil
	}
	return os.WriteFile(path, wrapped, 0o600)
}
