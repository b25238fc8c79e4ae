package queue

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rule is one rule of flow control, or one that a rule of flow control meets.
type rule struct {
	name, setting string
	in            *regexp.Regexp // finds the rule in a section of a script
}

var rules = []rule{
	{"weights", "`group.weights`", regexp.MustCompile(`group\.weights\.`)},
	{"fresh", "`level.fresh_share`", regexp.MustCompile(`level\.fresh_share=`)},
	{"ageing", "`priority_step`", regexp.MustCompile(`priority_step=`)},
	{"adaptive", "`level.adaptive`", regexp.MustCompile(`level\.adaptive`)},
	{"breaker", "`level.breaker`", regexp.MustCompile(`(?m)^breaker |target=down|level\.breaker=errors`)},
	{"budget", "`retry.budget`", regexp.MustCompile(`retry\.budget=`)},
	{"reason", "`retry.by_reason`", regexp.MustCompile(`retry\.by_reason\.`)},
	{"coalesce", "`coalesce`", regexp.MustCompile(`coalesce\.by=`)},
	{"fencing", "fencing tokens", regexp.MustCompile(`(?m)^tokens on`)},
	{"pause", "a pause with an end", regexp.MustCompile(`(?m)^pause .*for=`)},
	{"accept", "`accept.rate`", regexp.MustCompile(`accept\.rate=`)},
	{"rate", "`level.rate`", regexp.MustCompile(`level\.rate=`)},
	{"inflight", "`level.max_in_flight`", regexp.MustCompile(`level\.max_in_flight=`)},
	{"group", "`group.max_in_flight`, `group.rate`", regexp.MustCompile(`group\.(max_in_flight|rate)=`)},
	{"dedup", "dedup ids", regexp.MustCompile(`dedup=`)},
	{"ttl", "TTL", regexp.MustCompile(`ttl=`)},
	{"delay", "a delay", regexp.MustCompile(`(?m)^(pub|nack) .*delay=\d`)},
	{"dead", "dead letters", regexp.MustCompile(`(?m)^reject |max_attempts=\d|dead_letter`)},
	{"overflow", "`max_messages`, `overflow`", regexp.MustCompile(`max_(messages|bytes)=`)},
}

// apart are the pairs of rules that do not meet, with the reason. A name stands for all pairs of
// its rules with the rules of the other list.
var apart = []struct {
	these, others []string
	why           string
}{
	{[]string{"accept", "dedup"}, []string{"weights", "fresh", "ageing", "adaptive", "breaker", "budget", "reason", "fencing", "rate", "inflight", "group"},
		"one decides when a message is published, the other when it is delivered or tried again"},
	{[]string{"dedup"}, []string{"pause"}, "one decides when a message is published, the other when it is delivered"},
	{[]string{"accept"}, []string{"ttl", "delay"}, "the rate counts messages, whatever their times"},
}

// TestPairsOfRules: every two rules that meet have a section in a script, with the line
// "# meets: a × b" before its commands, and the section uses both rules. Every other pair has a
// reason in apart. testdata/README.md lists all pairs; -rewrite writes it.
func TestPairsOfRules(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	met := map[[2]string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, section := range strings.Split(string(text), "\n\n") {
			commands, _, _ := strings.Cut(section, "\n----")
			_, names, tagged := strings.Cut(commands, "# meets: ")
			if !tagged {
				continue
			}
			names, _, _ = strings.Cut(names, "\n")
			for _, pair := range strings.Split(names, ", ") {
				a, b, _ := strings.Cut(pair, " × ")
				for _, name := range []string{a, b} {
					i := slices.IndexFunc(rules, func(r rule) bool { return r.name == name })
					if i < 0 {
						t.Errorf("%s: %q is no pair of rules", file, pair)
					} else if !rules[i].in.MatchString(commands) {
						t.Errorf("%s: the section of %q does not use %s:\n%s", file, pair, name, commands)
					}
				}
				met[order(a, b)] = filepath.Base(file)
			}
		}
	}
	reasons := map[[2]string]string{}
	for _, x := range apart {
		for _, a := range x.these {
			for _, b := range x.others {
				reasons[order(a, b)] = x.why
			}
		}
	}
	for i, a := range rules {
		for _, b := range rules[:i] {
			file, why := met[order(a.name, b.name)], reasons[order(a.name, b.name)]
			switch {
			case file == "" && why == "":
				t.Errorf("%s × %s: no section of a script shows how the rules meet", b.name, a.name)
			case file != "" && why != "":
				t.Errorf("%s × %s: %s has a section, and apart says that they do not meet", b.name, a.name, file)
			}
		}
	}
	const readme = "testdata/README.md"
	want := pairsTable(met, reasons)
	if *rewrite {
		if err := os.WriteFile(readme, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(readme); err != nil || string(got) != want {
		t.Errorf("%s is not what the scripts say (%v); run this test with -rewrite", readme, err)
	}
}

// order returns two names in the order of rules.
func order(a, b string) [2]string {
	at := func(name string) int { return slices.IndexFunc(rules, func(r rule) bool { return r.name == name }) }
	if at(a) > at(b) {
		a, b = b, a
	}
	return [2]string{a, b}
}

func pairsTable(met, reasons map[[2]string]string) string {
	var b strings.Builder
	b.WriteString("# Scripts of the queue's rules\n\nscript_test.go runs each `.txt` file here. `TestPairsOfRules` writes this page.\n\n" +
		"Each pair of rules that meets has a section in a script, with a line `# meets: a × b`.\n\n| rule | settings |\n|---|---|\n")
	for _, r := range rules {
		fmt.Fprintf(&b, "| %s | %s |\n", r.name, r.setting)
	}
	byFile := map[string][]string{}
	for i, a := range rules {
		for _, o := range rules[i+1:] {
			if f := met[[2]string{a.name, o.name}]; f != "" {
				byFile[f] = append(byFile[f], a.name+" × "+o.name)
			}
		}
	}
	b.WriteString("\n| script | pairs |\n|---|---|\n")
	for _, f := range slices.Sorted(maps.Keys(byFile)) {
		fmt.Fprintf(&b, "| [%s](%s) | %s |\n", f, f, strings.Join(byFile[f], ", "))
	}
	byReason := map[string][]string{}
	for i, a := range rules {
		for _, o := range rules[i+1:] {
			if why := reasons[[2]string{a.name, o.name}]; why != "" {
				byReason[why] = append(byReason[why], a.name+" × "+o.name)
			}
		}
	}
	b.WriteString("\n| pairs that do not meet | why |\n|---|---|\n")
	for _, why := range slices.Sorted(maps.Keys(byReason)) {
		fmt.Fprintf(&b, "| %s | %s |\n", strings.Join(byReason[why], ", "), why)
	}
	return b.String()
}
