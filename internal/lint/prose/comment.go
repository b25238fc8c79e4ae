package prose

import (
	"bytes"
	"fmt"
	"go/format"
	"go/parser"
	"go/scanner"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// Comment is a run of comment lines with nothing else on them, or one comment at the end of a line
// of code.
type Comment struct {
	Line     int
	Indent   string // the white space before the //
	Trailing bool
	Blocks   []Block
}

// directive matches a comment that programs read.
var directive = regexp.MustCompile(`^(//[a-z]+:|//\S*nolint|//line |//export |// want |// \+build)`)

// output matches the first line of an example's expected output.
var output = regexp.MustCompile(`(?i)^\s*(unordered )?output:`)

// Comments returns the comments of a Go file that are written with //.
func Comments(src []byte) ([]Comment, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "", src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(src), "\n")
	var all []Comment
	for _, group := range f.Comments {
		var run []string
		var c Comment
		end := func() {
			if len(run) > 0 {
				c.Blocks = commentBlocks(run, c.Line)
				all = append(all, c)
			}
			run = nil
		}
		for _, x := range group.List {
			at := fset.Position(x.Slash)
			before := lines[at.Line-1][:at.Column-1]
			if !strings.HasPrefix(x.Text, "//") || directive.MatchString(x.Text) {
				end()
				continue
			}
			trailing := strings.TrimSpace(before) != ""
			if len(run) > 0 && (trailing || c.Trailing || before != c.Indent || at.Line != c.Line+len(run)) {
				end()
			}
			if len(run) == 0 {
				c = Comment{Line: at.Line, Indent: before, Trailing: trailing}
			}
			run = append(run, strings.TrimPrefix(x.Text, "//"))
		}
		end()
	}
	return all, nil
}

// commentBlocks divides the lines of a comment into blocks, by the rules of Go's doc comments.
func commentBlocks(lines []string, first int) []Block {
	var b builder
	fixed := slices.ContainsFunc(lines, func(s string) bool { return output.MatchString(s) || strings.Contains(s, "unordered:") })
	inItem := false
	for i, line := range lines {
		at := first + i
		text, spaced := strings.CutPrefix(line, " ")
		indented := spaced && (strings.HasPrefix(text, " ") || strings.HasPrefix(text, "\t"))
		m := item.FindStringSubmatch(text)
		switch {
		case fixed, strings.TrimSpace(line) == "", !spaced:
			b.add(Verbatim, at, line)
			inItem = inItem && strings.TrimSpace(line) == ""
		case !indented && strings.HasPrefix(text, "# "):
			b.add(Heading, at, line)
			inItem = false
		case m != nil && (!indented || len(m[1]) <= 4 && !strings.Contains(m[1], "\t")):
			rest := " "
			if indented {
				rest = " " + strings.Repeat(" ", len(m[1])+len(m[2])+len(m[3]))
			}
			b.begin(at, line, " "+m[1]+m[2]+m[3], rest)
			inItem = indented
		case indented && inItem && b.open && !strings.HasPrefix(text, "\t"):
			b.goOn(line)
		case indented:
			b.add(Verbatim, at, line)
		case b.open && !inItem:
			b.goOn(line)
		default:
			inItem = false
			b.begin(at, line, " ", " ")
		}
	}
	return b.finish()
}

// WrapGo returns a Go file with its comments wrapped at width columns. Comments at the end of a
// line of code stay unchanged. If a word of a comment, the code or its format would change, it
// returns an error instead.
func WrapGo(src []byte, width int) ([]byte, error) {
	comments, err := Comments(src)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(src), "\n")
	slices.SortFunc(comments, func(a, b Comment) int { return b.Line - a.Line }) // replace from the end, so that earlier line numbers stay valid
	for _, c := range comments {
		if c.Trailing {
			continue
		}
		count := 0
		var fresh []string
		for i := range c.Blocks {
			count += len(c.Blocks[i].Lines)
			for _, line := range c.Blocks[i].Wrap(max(width-Width(c.Indent)-2, 40)) {
				fresh = append(fresh, c.Indent+"//"+line)
			}
		}
		lines = slices.Replace(lines, c.Line-1, c.Line-1+count, fresh...)
	}
	out := []byte(strings.Join(lines, "\n"))
	if formatted, err := format.Source(out); err != nil || !bytes.Equal(formatted, out) && gofmted(src) {
		return nil, fmt.Errorf("the wrapped file is not as gofmt has it: %w", orDiffers(err))
	}
	if err := sameGo(src, out); err != nil {
		return nil, err
	}
	return out, nil
}

func gofmted(src []byte) bool {
	formatted, err := format.Source(src)
	return err == nil && bytes.Equal(formatted, src)
}

func orDiffers(err error) error {
	if err == nil {
		err = fmt.Errorf("its layout differs")
	}
	return err
}

// sameGo returns an error if two Go files differ in more than the wrapping of comments.
func sameGo(a, b []byte) error {
	x, y := tokens(a), tokens(b)
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Errorf("the wrapped file differs: %q became %q", x[i], y[i])
		}
	}
	if len(x) != len(y) {
		return fmt.Errorf("the wrapped file has %d words, and the file had %d", len(y), len(x))
	}
	if _, err := parser.ParseFile(token.NewFileSet(), "", b, parser.ParseComments); err != nil {
		return err
	}
	return nil
}

// tokens returns the code of a file token by token and its comments word by word, in order.
func tokens(src []byte) (list []string) {
	var s scanner.Scanner
	fset := token.NewFileSet()
	s.Init(fset.AddFile("", fset.Base(), len(src)), src, nil, scanner.ScanComments)
	for {
		_, tok, lit := s.Scan()
		switch tok {
		case token.EOF:
			return list
		case token.COMMENT:
			list = append(list, strings.Fields(strings.TrimPrefix(lit, "//"))...)
		default:
			list = append(list, tok.String()+" "+lit)
		}
	}
}
