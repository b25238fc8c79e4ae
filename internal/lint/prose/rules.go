package prose

import (
	"fmt"
	"regexp"
	"strings"
)

const (
	// MaxWords is the most words of a sentence. The aim is 20.
	MaxWords = 35
	// MaxColumns is the largest width of a line. Prose wraps at 100, but a long word or a span of
	// code can be wider.
	MaxColumns = 110
)

// Problem is a place where prose breaks a rule.
type Problem struct {
	Line int
	What string
}

// Banned is a phrase that must not be used, and its replacement.
type Banned struct {
	Phrase  string
	Instead string
	match   *regexp.Regexp
}

// ParseBanned reads a list of banned phrases, one per line, as "PHRASE: INSTEAD". # begins a
// comment.
func ParseBanned(text string) (list []Banned, err error) {
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		phrase, instead, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(instead) == "" {
			return nil, fmt.Errorf("line %d: want PHRASE: INSTEAD, not %q", i+1, line)
		}
		words := strings.Fields(phrase)
		for n, w := range words {
			words[n] = regexp.QuoteMeta(w)
		}
		match, err := regexp.Compile(`(?i)(^|[^\w-])` + strings.Join(words, `\s+`) + `($|[^\w-])`)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		list = append(list, Banned{strings.Join(strings.Fields(phrase), " "), strings.TrimSpace(instead), match})
	}
	return list, nil
}

// Rules are the rules that Check uses.
type Rules struct{ Banned []Banned }

// Check returns the problems of blocks. before is the number of columns in front of their lines.
// checkWidth is false for a comment at the end of a line of code.
func (r *Rules) Check(blocks []Block, before int, checkWidth bool) (found []Problem) {
	for i := range blocks {
		b := &blocks[i]
		var texts []string
		switch b.Kind {
		case Text:
			texts = []string{strings.Join(b.Words, " ")}
			for n, line := range b.Lines {
				if w := before + Width(line); checkWidth && w > MaxColumns && len(strings.Fields(line)) > 1 {
					found = append(found, Problem{b.Line + n, fmt.Sprintf("the line has %d columns; wrap it at 100 (go run ./internal/lint/rewrap -w FILE), at most %d are allowed", w, MaxColumns)})
				}
			}
		case Heading:
			texts = b.Lines
		case Table:
			for n, row := range b.Lines {
				for cell := range strings.SplitSeq(codeSpan.ReplaceAllStringFunc(row, blank), "|") {
					found = append(found, r.sentences(b.Line+n, cell)...)
				}
			}
		}
		for _, text := range texts {
			found = append(found, r.sentences(b.Line, text)...)
		}
	}
	return found
}

var (
	codeSpan = regexp.MustCompile("`[^`]*`")
	target   = regexp.MustCompile(`\]\([^)]*\)`)
	// sentenceEnd matches the space after a sentence. A full stop after an abbreviation does not
	// end a sentence.
	sentenceEnd  = regexp.MustCompile(`[.!?][)"'*_]*\s+`)
	abbreviation = regexp.MustCompile(`(^|\W)(e\.g|i\.e|etc|vs|no|cf)[.]\s+$`)
)

// blank replaces a span of code by one word, so its text is not checked.
func blank(string) string { return "CODE" }

// sentences checks the sentences of a text. line is the text's first line.
func (r *Rules) sentences(line int, text string) (found []Problem) {
	text = target.ReplaceAllString(codeSpan.ReplaceAllStringFunc(text, blank), "]")
	for _, b := range r.Banned {
		if b.match.MatchString(text) {
			found = append(found, Problem{line, fmt.Sprintf("%q is banned: write %s", b.Phrase, b.Instead)})
		}
	}
	for _, s := range Sentences(text) {
		if n := countWords(s); n > MaxWords {
			found = append(found, Problem{line, fmt.Sprintf("a sentence has %d words, at most %d are allowed; it begins with %q", n, MaxWords, begin(s))})
		}
	}
	return found
}

// Sentences returns the sentences of a text.
func Sentences(text string) (list []string) {
	start := 0
	for _, at := range sentenceEnd.FindAllStringIndex(text, -1) {
		if abbreviation.MatchString(text[start:at[1]]) {
			continue
		}
		list = append(list, text[start:at[1]])
		start = at[1]
	}
	if strings.TrimSpace(text[start:]) != "" {
		list = append(list, text[start:])
	}
	return list
}

// countWords counts the words that contain a letter or a digit.
func countWords(s string) (n int) {
	for _, w := range strings.Fields(s) {
		if strings.ContainsAny(strings.ToLower(w), "abcdefghijklmnopqrstuvwxyz0123456789") {
			n++
		}
	}
	return n
}

func begin(s string) string {
	words := strings.Fields(s)
	return strings.Join(words[:min(len(words), 6)], " ")
}
