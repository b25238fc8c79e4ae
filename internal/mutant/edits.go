package mutant

import (
	"fmt"
	"strings"

	"github.com/surgetank/surgetank/internal/overlay"
)

// guard is the text in plants that represents the condition that the defect is on.
const guard = "DEFECT"

// Edits returns the changes for a build in which a defect is always on. For None it returns no
// changes.
func Edits(d Defect) (edits []overlay.Edit) {
	for _, p := range plants {
		if p.defect == d {
			edits = append(edits, overlay.Edit{File: p.file, Old: text(p.before, ""), New: text(p.after, "true")})
		}
	}
	return edits
}

// Switchable returns the changes for a build with all defects, in which Set switches one on. A
// program that imports this package needs the changes, so that Planted tells the truth.
func Switchable() []overlay.Edit {
	edits := []overlay.Edit{{File: "internal/mutant/mutant.go", Old: "const Planted = false", New: "const Planted = true"}}
	for _, p := range plants {
		edits = append(edits, overlay.Edit{
			File: p.file, Old: text(p.before, ""), New: text(p.after, fmt.Sprintf("mutant.Is(%q)", p.defect)),
			Imports: []string{"github.com/surgetank/surgetank/internal/mutant"},
		})
	}
	return edits
}

func text(s, condition string) string {
	return strings.ReplaceAll(strings.Trim(s, "\n"), guard, condition)
}
