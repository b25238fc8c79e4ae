package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
)

// versionCmd prints what was built. The facts come from the build itself, so there is nothing to set by hand.
type versionCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// buildInfo is the JSON shape of version.
type buildInfo struct {
	Version  string `json:"version"`            // of the module; "devel" when built from a working tree
	Commit   string `json:"commit,omitempty"`   // the revision it was built from
	Modified bool   `json:"modified,omitempty"` // the working tree differed from the commit
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
}

func readBuildInfo() buildInfo {
	b := buildInfo{Version: "devel", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
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
	_, err := fmt.Fprintf(s.stdout, "surgetank %s%s %s %s/%s\n", b.Version, commit, b.Go, b.OS, b.Arch)
	return err
}
