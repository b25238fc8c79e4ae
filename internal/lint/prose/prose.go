// Package prose checks and wraps the project's prose: Go comments and Markdown. It finds sentences,
// words and lines that break the rules of CONTRIBUTING.md. Lint tests and the program in
// internal/lint/rewrap use it.
package prose

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// Kind is the kind of a block of lines.
type Kind int

// The kinds of blocks. Only a Text may be wrapped.
const (
	Text     Kind = iota // a paragraph or a list item
	Heading              // one line
	Table                // rows of cells
	Verbatim             // code, drawings, blank lines, directives
)

// Block is a run of lines that belong together.
type Block struct {
	Kind  Kind
	Line  int      // number of the first line in the file
	Lines []string // as in the file, without the // of a comment
	// First and Rest are the prefixes of a Text's first line and later lines, such as "- " and "  ".
	First, Rest string
	// Words are the words of a Text. A span of code is one word, even with spaces in it.
	Words []string
}

// tabWidth is the width of a tab for computing the width of a line.
const tabWidth = 4

// Width returns the width of a line in columns.
func Width(line string) int {
	return utf8.RuneCountInString(line) + (tabWidth-1)*strings.Count(line, "\t")
}

// risky matches words that, at the start of a line, change its meaning in Markdown or in a comment.
var risky = regexp.MustCompile("^([-+*#>|=~<:]|\\d+[.)]$|```|\\+build|(?i:output:|unordered)|//)")

// split returns the words of a text. A span of code stays one word, and a risky word is joined to
// the previous word.
func split(text string) (words []string) {
	open := false
	for _, w := range strings.Fields(text) {
		if glue := open || len(words) > 0 && risky.MatchString(w); glue && len(words) > 0 {
			words[len(words)-1] += " " + w
		} else {
			words = append(words, w)
		}
		if strings.Count(w, "`")%2 == 1 {
			open = !open
		}
	}
	if open { // a single backtick does not begin a span
		words = words[:0]
		for _, w := range strings.Fields(text) {
			if len(words) > 0 && risky.MatchString(w) {
				words[len(words)-1] += " " + w
			} else {
				words = append(words, w)
			}
		}
	}
	return words
}

// Wrap returns the lines of a block, wrapped at width columns. A longer word has a line of its own.
// A block that is not Text stays unchanged.
func (b *Block) Wrap(width int) []string {
	if b.Kind != Text {
		return b.Lines
	}
	var lines []string
	line := b.First
	empty := true
	for _, w := range b.Words {
		if !empty && Width(line)+1+Width(w) > width {
			lines = append(lines, line)
			line, empty = b.Rest, true
		}
		if !empty {
			line += " "
		}
		line += w
		empty = false
	}
	return append(lines, line)
}

// item matches the marker of a list item.
var item = regexp.MustCompile(`^(\s*)([-*+]|\d+[.)])(\s+)\S`)

// drawn reports whether a line must stay unchanged, because it contains a drawing of spaces or
// boxes.
func drawn(line string) bool {
	return strings.Contains(strings.TrimSpace(line), "  ") || strings.ContainsAny(line, "\t│─┌┐└┘├┤┬┴┼▶▼▲◀")
}

// builder collects blocks.
type builder struct {
	blocks []Block
	open   bool // the last block is a Text that the next line can continue
}

func (b *builder) add(kind Kind, line int, text string) {
	if last := len(b.blocks) - 1; last >= 0 && kind != Heading && b.blocks[last].Kind == kind && kind != Text {
		b.blocks[last].Lines = append(b.blocks[last].Lines, text)
	} else {
		b.blocks = append(b.blocks, Block{Kind: kind, Line: line, Lines: []string{text}})
	}
	b.open = false
}

// begin starts a Text.
func (b *builder) begin(line int, text, first, rest string) {
	b.blocks = append(b.blocks, Block{Kind: Text, Line: line, Lines: []string{text}, First: first, Rest: rest})
	b.open = true
}

// goOn appends a line to the open Text.
func (b *builder) goOn(text string) {
	last := &b.blocks[len(b.blocks)-1]
	last.Lines = append(last.Lines, text)
}

// finish computes the words of each Text. A Text with drawn lines or hard breaks becomes Verbatim.
func (b *builder) finish() []Block {
	for i := range b.blocks {
		x := &b.blocks[i]
		if x.Kind != Text {
			continue
		}
		var text strings.Builder
		for n, line := range x.Lines {
			switch {
			case n == 0:
				line = strings.TrimPrefix(line, x.First)
			case strings.HasPrefix(strings.TrimSpace(x.Rest), ">"):
				line = strings.TrimLeft(line, "> ")
			}
			if n < len(x.Lines)-1 && strings.HasSuffix(line, "  ") || drawn(line) {
				x.Kind = Verbatim
			}
			text.WriteString(line + "\n")
		}
		x.Words = split(text.String())
	}
	return b.blocks
}
