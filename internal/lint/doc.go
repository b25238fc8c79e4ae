// Package lint holds the architecture of the project as tests: which package may import which, what
// must stay deterministic, what a user's program must not link, and how long a file may grow. It
// compares ARCHITECTURE.md and the index of decisions with the tree, and checks comments and
// documents against the rules for prose. It has no code that ships.
//
// A failing test here names the file and line, the rule, and the reason for the rule. When a rule
// is wrong, change the rule, its reason and ARCHITECTURE.md in one commit.
package lint
