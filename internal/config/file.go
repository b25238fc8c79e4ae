package config

import (
	"bytes"
	"errors"
	"os"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/settings"
	"github.com/surgetank/surgetank/sink"
)

// File is the content of a configuration file.
type File struct {
	Path   string
	Server Server
	Queues []Queue // the queues in the file's order
	Sinks  []Sink

	Policies []policy.Policy
}

// Queue is one entry of the queues section.
type Queue struct {
	Name   string
	Config surgetank.QueueConfig
	// pauses means that the file sets whether the queue is paused. If the file does not, the
	// operator decides at runtime.
	pauses bool
}

// Over returns the settings after the file is applied to a queue with the settings now. They are
// the file's settings. Only if the file does not set paused, a pause in now stays, with its end.
func (q Queue) Over(now surgetank.QueueConfig) surgetank.QueueConfig {
	c := q.Config
	if !q.pauses {
		c.Paused = now.Paused
		if c.PausedUntil.IsZero() {
			c.PausedUntil = now.PausedUntil
		}
	}
	return c
}

// Patch returns the same change as Over as a JSON merge patch, which a server applies in one step.
// The patch contains every setting, with null for settings that the file does not contain. It
// contains paused only if the file sets it, and null for paused_until only if the file sets paused.
// A merge keeps the names of a map that a patch does not contain. So the patch contains null for
// names that are in now and not in the file.
func (q Queue) Patch(now surgetank.QueueConfig) map[string]any {
	patch := settings.Encode(settings.Unqualify(q.Config))
	settings.ForgetNames(patch, now)
	if q.pauses {
		patch["paused"] = q.Config.Paused
	} else {
		delete(patch, "paused")
	}
	for _, path := range settings.Paths() {
		section, key, nested := strings.Cut(path, ".")
		into := patch
		if nested {
			if _, ok := patch[section].(map[string]any); !ok {
				patch[section] = map[string]any{}
			}
			into = patch[section].(map[string]any)
		} else {
			key = section
		}
		if _, set := into[key]; !set && (q.pauses || path != "paused" && path != "paused_until") {
			into[key] = nil
		}
	}
	return patch
}

// Sink is one entry of the sinks section.
type Sink struct {
	Name string
	Spec sink.Spec
}

// JSON returns the settings as the HTTP interface accepts them, including secrets.
func (s Sink) JSON() []byte { return s.Spec.Encode() }

// SameAs reports whether the settings shown by the HTTP interface equal the settings of s. The
// shown settings have no secrets, so a different password is not detected.
func (s Sink) SameAs(shown []byte) bool {
	other, err := sink.ParseSpec(shown)
	return err == nil && bytes.Equal(other.Redacted().Encode(), s.Spec.Beside(other).Redacted().Encode())
}

// Load reads a file. If the file has mistakes, the error is a Problems with all of them. The path
// "-" has no special meaning.
func Load(path string) (*File, error) {
	data, err := readLimited(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data, environment)
}

func readLimited(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, surgetank.Errorf(surgetank.CodeNotFound, "cannot read the configuration file: %w", err)
	}
	if info.Size() > MaxFile {
		return nil, surgetank.Errorf(surgetank.CodeTooLarge, "the configuration file %s has %d bytes; at most %d are allowed", path, info.Size(), MaxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, surgetank.Errorf(surgetank.CodeInvalid, "cannot read the configuration file: %w", err)
	}
	return data, nil
}

// Parse reads a file's bytes. path is only used in messages; env returns the values of variables.
func Parse(path string, data []byte, env func(string) (string, bool)) (*File, error) {
	r := &reader{problems: problems{file: path}, env: env}
	f := &File{Path: path}
	if tree := r.read(data); tree != nil {
		r.file(f, tree)
	}
	if err := r.err(); err != nil {
		return nil, &surgetank.Error{Code: surgetank.CodeInvalid, Message: err.Error(), Err: err}
	}
	return f, nil
}

func (r *reader) file(f *File, tree *node) {
	if tree.kind == kindNull {
		return
	}
	if tree.kind != kindMap {
		r.add(tree, "", "the file must be a map with the keys server, policies, queues and sinks")
		return
	}
	for _, e := range tree.entries {
		switch e.key {
		case "server":
			r.server(&f.Server, e.value)
		case "queues":
			r.each(e, func(name string, at *node, n *node) {
				if q, ok := r.queue(name, at, n); ok {
					f.Queues = append(f.Queues, q)
				}
			})
		case "policies":
			r.each(e, func(name string, at *node, n *node) {
				if p, ok := r.policy(name, at, n); ok {
					f.Policies = append(f.Policies, p)
				}
			})
		case "sinks":
			r.each(e, func(name string, at *node, n *node) {
				if s, ok := r.sink(name, at, n); ok {
					f.Sinks = append(f.Sinks, s)
				}
			})
		default:
			r.unknown(&e.at, "", e.key, "server, policies, queues, sinks")
		}
	}
}

func (r *reader) unknown(at *node, path, key, known string) {
	r.add(at, join(path, key), "this key is not known; known here: %s", known)
}

// each calls do for every named entry of a section.
func (r *reader) each(section entry, do func(name string, at, n *node)) {
	if section.value.kind == kindNull {
		return
	}
	if section.value.kind != kindMap {
		r.add(section.value, section.key, "this must be a map from names to settings")
		return
	}
	what := strings.TrimSuffix(section.key, "s")
	if section.key == "policies" {
		what = "policy"
	}
	for _, e := range section.value.entries {
		if err := surgetank.ValidateName(what, e.key); err != nil {
			r.add(&e.at, section.key, "%s", err)
			continue
		}
		n := e.value
		if n.kind == kindNull { // "orders:" without a value means all defaults
			n = &node{line: e.at.line, column: e.at.column, kind: kindMap}
		}
		if n.kind != kindMap {
			r.add(n, join(section.key, e.key), "this must be a map of settings")
			continue
		}
		at := e.at
		do(e.key, &at, n)
	}
}

func (r *reader) queue(name string, at, n *node) (q Queue, ok bool) {
	q.Name = name
	q.pauses = n.get("paused") != nil
	clean := r.decode("queues."+name, at, n, func(n *node) (err error) {
		q.Config, err = settings.Decode(n.tree())
		return err
	})
	return q, clean
}

func (r *reader) policy(name string, at, n *node) (p policy.Policy, ok bool) {
	given := map[string]bool{}
	for _, e := range n.entries {
		given[e.key] = true
	}
	clean := r.decode("policies."+name, at, n, func(n *node) (err error) {
		tree := n.tree()
		// A wrong key that decode removed must not be reported as missing, too.
		for key, stand := range map[string]any{"pattern": ".", "settings": map[string]any{"queue-mode": ""}} {
			if _, left := tree[key]; !left && given[key] {
				tree[key] = stand
			}
		}
		p, err = policy.FromTree(name, tree)
		return err
	})
	return p, clean
}

func (r *reader) sink(name string, at, n *node) (s Sink, ok bool) {
	s.Name = name
	clean := r.decode("sinks."+name, at, n, func(n *node) (err error) {
		s.Spec, err = sink.ParseSpec(n.JSON())
		return err
	})
	return s, clean
}

// decode calls into, a function of the package that defines the settings, and adds the position in
// the file to the function's error. Then it removes the wrong setting and calls into again, so that
// all mistakes are reported.
func (r *reader) decode(path string, at, n *node, into func(*node) error) (clean bool) {
	clean = true
	for _, bad := range r.bad {
		if rest, below := cutPath(bad, path); below {
			clean = false
			if less, ok := n.without(rest); ok {
				n = less
			}
		}
	}
	for range maxProblems {
		err := into(n)
		if err == nil {
			return clean
		}
		clean = false
		var e *surgetank.Error
		if !errors.As(err, &e) || e.Field == "" {
			r.add(at, path, "%s", err)
			return false
		}
		place, _ := n.find(e.Field)
		if place == n { // the file does not contain the key that the error names
			place = at
		}
		r.add(place, join(path, e.Field), "%s", strings.TrimPrefix(e.Message, e.Field+": "))
		less, ok := n.without(e.Field)
		if !ok {
			return false
		}
		n = less
	}
	return false
}

func cutPath(path, prefix string) (rest string, below bool) {
	if len(path) > len(prefix)+1 && path[:len(prefix)] == prefix && path[len(prefix)] == '.' {
		return path[len(prefix)+1:], true
	}
	return "", false
}
