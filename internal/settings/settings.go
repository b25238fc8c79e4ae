// Package settings is how the settings of a queue are written: the one codec between
// surgetank.QueueConfig and the keys of the configuration file, which are those of the HTTP API and
// of the command line too.
//
// It works on a tree as a YAML or JSON decoder gives it (maps, strings, numbers, booleans), so that
// it knows no file format. Errors name the key at fault by its path ("group.max_in_flight"), by
// which a loader finds its line and column. A key that is left out means the default; unknown keys
// are refused.
package settings

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
)

// unsupported keys are part of the file format but not of this version.
var unsupported = map[string]string{
	"level.adaptive": "this version does not adapt its level by itself; leave it out and set level.max_in_flight or level.rate",
	"coalesce":       "this version does not coalesce messages; leave it out",
}

// index finds a field by path; sections are the paths that hold further keys.
var index, sections = func() (map[string]*Setting, map[string]bool) {
	byPath, inner := map[string]*Setting{}, map[string]bool{}
	for i := range Table {
		byPath[Table[i].Path] = &Table[i]
		if section, _, nested := strings.Cut(Table[i].Path, "."); nested {
			inner[section] = true
		}
	}
	return byPath, inner
}()

// Paths lists every key, nested ones with dots, in the order they are written in.
func Paths() []string {
	list := make([]string, len(Table))
	for i := range Table {
		list[i] = Table[i].Path
	}
	return list
}

// Decode reads the settings of one queue and checks them. Errors are CodeInvalid and carry the path
// as Field.
func Decode(tree map[string]any) (surgetank.QueueConfig, error) {
	var c surgetank.QueueConfig
	if err := decodeLevel(&c, "", tree); err != nil {
		return surgetank.QueueConfig{}, err
	}
	return c, Validate(c)
}

func decodeLevel(c *surgetank.QueueConfig, prefix string, tree map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		path, v := prefix+key, tree[key]
		if why, known := unsupported[path]; known {
			return surgetank.FieldErrorf(path, "%s: %s", path, why)
		}
		if sections[path] {
			inner, ok := v.(map[string]any)
			if !ok {
				return surgetank.FieldErrorf(path, "%s: it holds further keys (%s), not %s", path, strings.Join(keysOf(path+"."), ", "), kind(v))
			}
			if err := decodeLevel(c, path+".", inner); err != nil {
				return err
			}
			continue
		}
		f := index[path]
		if f == nil || prefix == "" && strings.Contains(key, ".") {
			return unknown(prefix, key)
		}
		if v == nil {
			return surgetank.FieldErrorf(path, "%s: it has no value; leave the key out for the default", path)
		}
		if err := f.set(c, v); err != nil {
			return surgetank.FieldErrorf(path, "%s: %s", path, err)
		}
	}
	return nil
}

// Encode writes c as the tree that Decode reads back to the same settings. Defaults that are zero
// in c are left out; give it WithDefaults(c) to see them.
func Encode(c surgetank.QueueConfig) map[string]any {
	tree := map[string]any{}
	for i := range Table {
		path, v := Table[i].Path, Table[i].get(&c)
		if v == nil {
			continue
		}
		section, key, nested := strings.Cut(path, ".")
		if !nested {
			tree[path] = v
			continue
		}
		inner, _ := tree[section].(map[string]any)
		if inner == nil {
			inner = map[string]any{}
			tree[section] = inner
		}
		inner[key] = v
	}
	return tree
}

// Qualify turns the queue names inside settings into full names of a virtual host; they were
// checked by Decode to hold no virtual host of their own.
func Qualify(c surgetank.QueueConfig, vhost string) surgetank.QueueConfig {
	if c.DeadLetter == DeadLetterDoor {
		c.DeadLetter = surgetank.FullName(DoorVhost, vhost)
	} else if c.DeadLetter != "" && c.DeadLetter != surgetank.DeadLetterDrop {
		c.DeadLetter = surgetank.FullName(vhost, c.DeadLetter)
	}
	return c
}

// Unqualify undoes Qualify, for showing.
func Unqualify(c surgetank.QueueConfig) surgetank.QueueConfig {
	vhost, name := surgetank.SplitName(c.DeadLetter)
	if c.DeadLetter = name; vhost == DoorVhost {
		c.DeadLetter = DeadLetterDoor
	}
	return c
}

// DoorVhost holds the queues that doors use for themselves. Users' virtual hosts never have its
// name.
const DoorVhost = "amq.internal"

// DeadLetterDoor is how dead_letter is written where a door passes the dead letters of a virtual
// host on by rules of its own: they go to the queue in DoorVhost that is named after the virtual
// host.
const DeadLetterDoor = "amq.dead-letters"

// keysOf lists the keys directly below a prefix.
func keysOf(prefix string) []string {
	var list []string
	for i := range Table {
		rest, below := strings.CutPrefix(Table[i].Path, prefix)
		if key, _, _ := strings.Cut(rest, "."); below && !slices.Contains(list, key) {
			list = append(list, key)
		}
	}
	return list
}

func unknown(prefix, key string) error {
	known := keysOf(prefix)
	hint := "known keys are " + strings.Join(known, ", ")
	for _, k := range known {
		if distance(k, key) <= 2 {
			hint = fmt.Sprintf("did you mean %s%s?", prefix, k)
		}
	}
	shown := key
	if len(shown) > 60 {
		shown = shown[:60]
	}
	return surgetank.FieldErrorf(prefix+shown, "%s%.60q is not a setting of a queue; %s", prefix, key, hint)
}

// distance is the Levenshtein distance of two keys; far for long strings, which are no typing
// errors.
func distance(a, b string) int {
	if len(b) > 40 {
		return len(b)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// kind names a value of the tree for an error.
func kind(v any) string {
	switch v.(type) {
	case nil:
		return "nothing"
	case map[string]any:
		return "a map"
	case []any:
		return "a list"
	case string:
		return "text"
	case bool:
		return "true or false"
	}
	return "a number"
}
