package prose

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	fence     = regexp.MustCompile("^\\s*(```|~~~)")
	ruler     = regexp.MustCompile(`^\s*([-*_=]\s*){3,}$`)
	linkTo    = regexp.MustCompile(`^\s*\[[^\]]+\]:\s`)
	quoteMark = regexp.MustCompile(`^(>\s?)+`)
)

// Markdown divides a document into blocks.
func Markdown(src string) []Block {
	var b builder
	inFence, indent := false, 0 // indent is the indentation of the current list item's text
	for i, line := range strings.Split(src, "\n") {
		at, trimmed := i+1, strings.TrimSpace(line)
		lead := len(line) - len(strings.TrimLeft(line, " "))
		m := item.FindStringSubmatch(line)
		switch {
		case fence.MatchString(line):
			inFence = !inFence
			b.add(Verbatim, at, line)
		case inFence, trimmed == "", ruler.MatchString(line), linkTo.MatchString(line), strings.HasPrefix(trimmed, "<"), strings.HasPrefix(line, "\t"):
			b.add(Verbatim, at, line)
		case strings.HasPrefix(trimmed, "#") && lead < 4:
			b.add(Heading, at, line)
			indent = 0
		case strings.HasPrefix(trimmed, "|"):
			b.add(Table, at, line)
		case strings.HasPrefix(line, ">"):
			mark := quoteMark.FindString(line)
			if b.open && strings.HasPrefix(b.blocks[len(b.blocks)-1].Rest, ">") && strings.TrimSpace(line[len(mark):]) != "" {
				b.goOn(line)
			} else if strings.TrimSpace(line[len(mark):]) == "" {
				b.add(Verbatim, at, line)
			} else {
				b.begin(at, line, mark, mark)
			}
		case m != nil:
			first := m[1] + m[2] + m[3]
			indent = len(first)
			b.begin(at, line, first, strings.Repeat(" ", indent))
		case b.open:
			b.goOn(line)
		case lead >= 4 && lead > indent:
			b.add(Verbatim, at, line) // indented code
		default:
			if lead < indent {
				indent = 0
			}
			prefix := line[:lead]
			b.begin(at, line, prefix, prefix)
		}
	}
	return b.finish()
}

// WrapMarkdown returns a document with its prose wrapped at width columns. If the words would
// change, it returns an error instead.
func WrapMarkdown(src string, width int) (string, error) {
	var lines []string
	for _, b := range Markdown(src) {
		lines = append(lines, b.Wrap(width)...)
	}
	out := strings.Join(lines, "\n")
	words := func(s string) []string {
		return slices.DeleteFunc(strings.Fields(s), func(w string) bool { return strings.Trim(w, ">") == "" })
	}
	if !slices.Equal(words(src), words(out)) {
		return "", fmt.Errorf("the wrapped document has other words")
	}
	kinds := func(s string) (kinds []string) {
		for _, b := range Markdown(s) {
			kinds = append(kinds, fmt.Sprint(b.Kind, b.First))
		}
		return kinds
	}
	if !slices.Equal(kinds(src), kinds(out)) {
		return "", fmt.Errorf("the wrapped document has another structure")
	}
	return out, nil
}
