package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/surgetank/surgetank/internal/dataformat"
)

// versionCmd prints the version of this build, and which data directories it reads and writes. The
// build itself has this information, so no release step sets it.
type versionCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// buildInfo is the JSON shape of version.
type buildInfo struct {
	Version  string `json:"version"`            // version of the module; "devel" when built from a working tree
	Commit   string `json:"commit,omitempty"`   // the revision that was built
	Modified bool   `json:"modified,omitempty"` // the working tree differed from the commit
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`

	Format formatShape `json:"format"`
}

// formatShape says which data directories a build reads and writes.
type formatShape struct {
	Writes uint32 `json:"writes"` // the format level of directories that this build has opened
	Reads  struct {
		From uint32 `json:"from"`
		To   uint32 `json:"to"`
	} `json:"reads"`
	OldestReader string `json:"oldest_reader"` // the oldest version that can read this build's directories
}

func readFormat() (f formatShape) {
	f.Writes, f.OldestReader = dataformat.Written().Number, dataformat.Written().Since
	f.Reads.From, f.Reads.To = dataformat.Oldest().Number, dataformat.Written().Number
	return f
}

func readBuildInfo() buildInfo {
	b := buildInfo{Version: "devel", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, Format: readFormat()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// Run prints the version.
func (c *versionCmd) Run(s *session) error {
	b := readBuildInfo()
	if c.JSON {
		return json.NewEncoder(s.stdout).Encode(b)
	}
	commit := ""
	if b.Commit != "" {
		commit = " (" + b.Commit[:min(12, len(b.Commit))]
		if b.Modified {
			commit += ", modified"
		}
		commit += ")"
	}
	_, err := fmt.Fprintf(s.stdout, "surgetank %s%s %s %s/%s\ndata: writes format level %d, which %s and newer can read; reads levels %d to %d\n",
		b.Version, commit, b.Go, b.OS, b.Arch, b.Format.Writes, b.Format.OldestReader, b.Format.Reads.From, b.Format.Reads.To)
	return err
}
