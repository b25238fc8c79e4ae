package sim

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Text returns a run as a script that can be kept in testdata, where a test runs it again:
//
//	# the violation, for people
//	options {…}
//	publish 1f2e3d4c5b6a7988
//
// Each line is an action: its kind and its seed in hexadecimal.
func (r Result) Text() string {
	var b strings.Builder
	for line := range strings.Lines(r.Violation) {
		fmt.Fprintf(&b, "# %s\n", strings.TrimRight(line, "\n"))
	}
	o, err := json.Marshal(r.Options)
	if err != nil {
		return fmt.Sprintf("# the options cannot be written: %v\n", err)
	}
	fmt.Fprintf(&b, "options %s\n", o)
	for _, a := range r.Actions {
		fmt.Fprintf(&b, "%s %016x\n", a.Kind, a.Seed)
	}
	return b.String()
}

// ParseScript parses the output of Text. Lines that begin with # are comments. One comment has a
// meaning. "# mutant: NAME" says that the script must fail with the defect NAME. Without such a
// line the script must pass.
func ParseScript(text string) (o Options, actions []Action, mutant string, err error) {
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "# mutant: "); ok {
			mutant = name
		}
		if line == "" || line[0] == '#' {
			continue
		}
		kind, rest, _ := strings.Cut(line, " ")
		if kind == "options" {
			if err := json.Unmarshal([]byte(rest), &o); err != nil {
				return o, nil, "", fmt.Errorf("line %d: %w", number, err)
			}
			continue
		}
		seed, err := strconv.ParseUint(rest, 16, 64)
		if err != nil {
			return o, nil, "", fmt.Errorf("line %d: %q is not an action and its seed", number, line)
		}
		actions = append(actions, Action{kind, seed})
	}
	if len(o.Queues) == 0 {
		return o, nil, "", fmt.Errorf("there is no line of options with a queue")
	}
	return o, actions, mutant, nil
}
