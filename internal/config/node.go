package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits of a file. Real files are far smaller; the limits stop malicious files.
const (
	MaxFile  = 4 << 20 // bytes
	maxNodes = 200_000 // values; a value is counted again for each alias
	maxDepth = 32
)

type kind uint8

const (
	kindNull kind = iota
	kindScalar
	kindList
	kindMap
)

// node is a YAML value reduced to the types of JSON, with its position in the file. Aliases are
// resolved, variables are expanded, and keys are unique.
type node struct {
	line, column int
	kind         kind
	text         string  // text of a scalar, unchanged
	value        any     // value of a scalar: string, bool or json.Number
	items        []*node // items of a list
	entries      []entry // entries of a map, in the file's order
}

type entry struct {
	key   string
	at    node // position of the key
	value *node
}

// get returns a map's value.
func (n *node) get(key string) *node {
	for _, e := range n.entries {
		if e.key == key {
			return e.value
		}
	}
	return nil
}

// find follows a dotted path ("retry.max", "columns.id") as far as possible. rest is the part that
// was not found. A key that contains dots is found by its whole text.
func (n *node) find(path string) (place *node, rest string) {
	at := n
	for path != "" {
		best := -1
		for i, e := range at.entries {
			if path == e.key || strings.HasPrefix(path, e.key) && path[len(e.key)] == '.' {
				if best < 0 || len(e.key) > len(at.entries[best].key) {
					best = i
				}
			}
		}
		if best < 0 {
			return at, path
		}
		e := at.entries[best]
		path = strings.TrimPrefix(path[len(e.key):], ".")
		at = e.value
		if path == "" {
			key := e.at
			return &key, ""
		}
	}
	return at, ""
}

// without returns a copy of n without the value at a path, and whether there was such a value. It
// is used to find further mistakes.
func (n *node) without(path string) (*node, bool) {
	for i, e := range n.entries {
		if path == e.key {
			c := *n
			c.entries = slices.Delete(slices.Clone(n.entries), i, i+1)
			return &c, true
		}
		if rest, ok := strings.CutPrefix(path, e.key+"."); ok {
			if inner, ok := e.value.without(rest); ok {
				c := *n
				c.entries = slices.Clone(n.entries)
				c.entries[i].value = inner
				return &c, true
			}
		}
	}
	return nil, false
}

// any returns the value as a JSON decoder returns it: maps, lists, strings, booleans, json.Number,
// nil.
func (n *node) any() any {
	switch n.kind {
	case kindList:
		list := make([]any, len(n.items))
		for i, item := range n.items {
			list[i] = item.any()
		}
		return list
	case kindMap:
		return n.tree()
	}
	return n.value
}

// JSON writes the value as JSON, maps in the file's order.
func (n *node) JSON() []byte {
	var b bytes.Buffer
	n.writeJSON(&b)
	return b.Bytes()
}

func (n *node) writeJSON(b *bytes.Buffer) {
	switch n.kind {
	case kindList:
		b.WriteByte('[')
		for i, item := range n.items {
			if i > 0 {
				b.WriteByte(',')
			}
			item.writeJSON(b)
		}
		b.WriteByte(']')
	case kindMap:
		b.WriteByte('{')
		for i, e := range n.entries {
			if i > 0 {
				b.WriteByte(',')
			}
			writeScalar(b, e.key)
			b.WriteByte(':')
			e.value.writeJSON(b)
		}
		b.WriteByte('}')
	default:
		writeScalar(b, n.value)
	}
}

func writeScalar(b *bytes.Buffer, v any) {
	text, err := json.Marshal(v)
	if err != nil { // strings, booleans, nil and parsed numbers always marshal
		panic(err)
	}
	b.Write(text)
}

// tree returns a map's entries.
func (n *node) tree() map[string]any {
	m := make(map[string]any, len(n.entries))
	for _, e := range n.entries {
		m[e.key] = e.value.any()
	}
	return m
}

// reader converts YAML nodes to node values.
type reader struct {
	problems
	env   func(string) (string, bool)
	nodes int
	full  bool     // the limit of values was exceeded, and this was reported
	bad   []string // paths of values that were already reported
}

// read parses a file into a tree of the readable parts, and collects the mistakes.
func (r *reader) read(data []byte) *node {
	if len(data) > MaxFile {
		r.add(nil, "", "the file has %d bytes; at most %d are allowed", len(data), MaxFile)
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return &node{line: 1, column: 1, kind: kindMap}
	case err != nil:
		r.syntax(err)
		return nil
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		r.add(&node{line: second.Line, column: second.Column}, "", "a second document starts here; put everything into one")
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
	}
	if len(doc.Content) == 0 {
		return &node{line: 1, column: 1, kind: kindMap}
	}
	return r.convert(doc.Content[0], "", 0)
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntax reports an error of the YAML parser, with its line if known.
func (r *reader) syntax(err error) {
	at, text := &node{line: 1, column: 1}, err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		if line, err := strconv.Atoi(m[1]); err == nil {
			at.line = line
		}
		text = m[2]
	}
	r.add(at, "", "this is not YAML: %s", text)
}

func (r *reader) convert(y *yaml.Node, path string, depth int) *node {
	n := &node{line: y.Line, column: y.Column}
	r.nodes++
	switch {
	case r.nodes > maxNodes:
		if !r.full {
			r.full = true
			r.add(n, path, "the file has more than %d values, those repeated by aliases counted; split it", maxNodes)
		}
		return n
	case depth > maxDepth:
		r.add(n, path, "the values are nested more than %d deep", maxDepth)
		return n
	}
	switch y.Kind {
	case yaml.AliasNode:
		if y.Alias == nil {
			r.add(n, path, "the alias *%s has no anchor", y.Value)
			return n
		}
		resolved := r.convert(y.Alias, path, depth+1)
		resolved.line, resolved.column = y.Line, y.Column
		return resolved
	case yaml.ScalarNode:
		r.scalar(n, y, path)
	case yaml.SequenceNode:
		n.kind = kindList
		r.checkTag(n, y, path)
		for i, item := range y.Content {
			n.items = append(n.items, r.convert(item, path+"["+strconv.Itoa(i)+"]", depth+1))
		}
	case yaml.MappingNode:
		n.kind = kindMap
		r.checkTag(n, y, path)
		r.entries(n, y, path, depth)
	default:
		r.add(n, path, "this value is of a kind that is not supported here")
	}
	return n
}

func (r *reader) entries(n *node, y *yaml.Node, path string, depth int) {
	seen := make(map[string]int, len(y.Content)/2)
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		at := node{line: k.Line, column: k.Column}
		switch {
		case k.Kind != yaml.ScalarNode:
			r.add(&at, path, "a key must be a plain name")
			continue
		case k.ShortTag() == "!!merge":
			r.add(&at, path, "merge keys (<<) are not supported; use an alias for a whole value, or write the settings out")
			continue
		}
		if line, dup := seen[k.Value]; dup {
			r.add(&at, join(path, k.Value), "this key is here a second time; the first is in line %d", line)
			continue
		}
		seen[k.Value] = k.Line
		n.entries = append(n.entries, entry{k.Value, at, r.convert(v, join(path, k.Value), depth+1)})
	}
}

func (r *reader) checkTag(n *node, y *yaml.Node, path string) {
	if tag := y.ShortTag(); tag != "!!map" && tag != "!!seq" && tag != "" {
		r.add(n, path, "the tag %.60s is not supported; write the value without it", tag)
	}
}

// scalar converts a value to JSON: plain numbers and booleans keep their type, and all other values
// are text. Variables are expanded first, so rate: ${RATE} can be a number. A variable's value can
// never become a key or a list.
func (r *reader) scalar(n *node, y *yaml.Node, path string) {
	expanded, ok := r.expand(n, y.Value, path)
	if !ok {
		n.kind, n.value = kindScalar, ""
		r.bad = append(r.bad, path)
		return
	}
	s := yaml.Node{Kind: yaml.ScalarNode, Style: y.Style, Tag: y.Tag, Value: expanded}
	if expanded != y.Value && y.Style&(yaml.TaggedStyle|yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		s.Tag = "" // resolve again with the new value
	}
	n.kind, n.text = kindScalar, expanded
	switch tag := s.ShortTag(); tag {
	case "!!null":
		n.kind = kindNull
	case "!!bool":
		var v bool
		if err := s.Decode(&v); err != nil {
			r.addBad(n, path, "%.60q is not true or false", expanded)
		}
		n.value = v
	case "!!int":
		var v int64
		if err := s.Decode(&v); err != nil {
			r.addBad(n, path, "the number %.60s is too large", expanded)
		}
		n.value = json.Number(strconv.FormatInt(v, 10))
	case "!!float":
		var v float64
		if err := s.Decode(&v); err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
			r.addBad(n, path, "%.60s is not a finite number", expanded)
			v = 0
		}
		n.value = json.Number(strconv.FormatFloat(v, 'g', -1, 64))
	case "!!str", "!!timestamp", "!!merge", "":
		n.value = expanded
	default:
		r.addBad(n, path, "the tag %.60s is not supported; write the value without it", tag)
		n.value = ""
	}
}

// addBad reports a value and keeps later checks from reporting it again.
func (r *reader) addBad(n *node, path, format string, args ...any) {
	r.add(n, path, format, args...)
	r.bad = append(r.bad, path)
}

var variable = regexp.MustCompile(`\$\$\{|\$\{([^}]*)\}?`)
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand replaces ${NAME} and ${NAME:-default}; $${ means a literal ${.
func (r *reader) expand(n *node, s, path string) (string, bool) {
	if !strings.Contains(s, "${") {
		return s, true
	}
	good := true
	out := variable.ReplaceAllStringFunc(s, func(m string) string {
		if m == "$${" {
			return "${"
		}
		inner, closed := strings.CutSuffix(m[2:], "}")
		name, def, hasDefault := strings.Cut(inner, ":-")
		if !closed || !variableName.MatchString(name) {
			r.add(n, path, "%.60s is not a variable; write ${NAME} or ${NAME:-default}, or $${ for ${ itself", m)
			good = false
			return ""
		}
		if v, ok := r.env(name); ok {
			return v
		}
		if hasDefault {
			return def
		}
		r.add(n, path, "the environment variable %s is not set; set it, or write ${%s:-default}", name, name)
		good = false
		return ""
	})
	return out, good
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// environment returns the value of an environment variable. Tests use other functions.
func environment(name string) (string, bool) { return os.LookupEnv(name) }
