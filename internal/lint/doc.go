// Package lint tests the architecture of the project. The tests check which package may import
// which, which code must be deterministic, which packages a user's program must not link, and how
// long a file may be. They also compare ARCHITECTURE.md and the index of decisions with the tree,
// and check comments and documents against the rules for prose. The package has no code that ships.
//
// A failing test names the file and line, the rule, and the reason for the rule. If a rule is
// wrong, change the rule, its reason and ARCHITECTURE.md in one commit.
package lint
