package main

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
)

// groupPath is the path of a line's group, as in the webhooks of a code host.
const groupPath = "$.payload.repository.full_name"

// expected is the expected content of the database: one checksum per line, by the line's number
// from 1.
type expected struct {
	sums   [][md5.Size]byte
	groups []int32 // index into names
	names  []string
	bytes  int64
}

// writeInput writes a file of n lines by repeating base. Each line gets its number in an additional
// first field "n".
func writeInput(path string, base [][]byte, n int) (*expected, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	e := &expected{sums: make([][md5.Size]byte, n), groups: make([]int32, n)}
	index := map[string]int32{}
	baseGroup := make([]int32, len(base))
	for i, line := range base {
		g, err := groupOf(line)
		if err != nil {
			return nil, fmt.Errorf("line %d of the input: %w", i+1, err)
		}
		if _, known := index[g]; !known {
			index[g] = int32(len(e.names))
			e.names = append(e.names, g)
		}
		baseGroup[i] = index[g]
	}
	var line []byte
	for i := range n {
		b := base[i%len(base)]
		line = append(line[:0], `{"n":`...)
		line = strconv.AppendInt(line, int64(i+1), 10)
		if rest := bytes.TrimSpace(b[1:]); rest[0] != '}' {
			line = append(line, ',')
		}
		line = append(line, b[1:]...)
		e.sums[i] = md5.Sum(line)
		e.groups[i] = baseGroup[i%len(base)]
		e.bytes += int64(len(line))
		if _, err := w.Write(append(line, '\n')); err != nil {
			return nil, err
		}
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	return e, f.Close()
}

// groupOf returns a line's group, or "" if it has none.
func groupOf(line []byte) (string, error) {
	var v struct {
		Payload struct {
			Repository struct {
				FullName string `json:"full_name"`
			} `json:"repository"`
		} `json:"payload"`
	}
	if len(line) < 2 || line[0] != '{' {
		return "", errors.New("it is not a JSON object")
	}
	if err := json.Unmarshal(line, &v); err != nil {
		return "", err
	}
	return v.Payload.Repository.FullName, nil
}

// readLines reads an NDJSON file.
func readLines(path string) ([][]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<20)
	var lines [][]byte
	for {
		line, err := in.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			lines = append(lines, line)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("%s has no lines", path)
	}
	return lines, nil
}

// madeUpLines returns the default input: events of a few hundred repositories, 0.5 to 8 KB each.
func madeUpLines() [][]byte {
	rng := rand.New(rand.NewPCG(7, 7))
	kinds := []string{"push", "issues", "pull_request", "release", "star"}
	lines := make([][]byte, 300)
	for i := range lines {
		filler := make([]byte, 500+rng.IntN(7500))
		for j := range filler {
			filler[j] = "abcdefghijklmnopqrstuvwxyz \\\""[rng.IntN(27)]
		}
		line, err := json.Marshal(map[string]any{
			"event": kinds[rng.IntN(len(kinds))],
			"payload": map[string]any{
				"repository": map[string]any{"full_name": fmt.Sprintf("org-%d/repo-%d", rng.IntN(8), rng.IntN(12))},
				"body":       string(filler), "note": "ünïcödé ✓",
			},
		})
		if err != nil { // maps of strings always marshal
			panic(err)
		}
		lines[i] = line
	}
	return lines
}
