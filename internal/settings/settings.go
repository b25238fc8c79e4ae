// Package settings converts between surgetank.QueueConfig and the written settings of a queue. The
// configuration file, the HTTP API and the command line use the same keys.
//
// The package works on a tree of maps, strings, numbers and booleans, as YAML and JSON decoders
// return it. It does not depend on a file format. Errors name the path of the wrong key
// ("group.max_in_flight"). With this path, the loader of a file can find line and column. A missing
// key means the default. Unknown keys are refused.
package settings

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/fullname"
)

// index maps a path to its setting; sections are the paths with further keys below.
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

// Paths returns every key, nested ones with dots, in writing order.
func Paths() []string {
	list := make([]string, len(Table))
	for i := range Table {
		list[i] = Table[i].Path
	}
	return list
}

// Decode decodes the settings of one queue and checks them. Errors are CodeInvalid with the path as
// Field.
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

// Encode writes c as a tree that Decode reads back to the same settings. Zero fields are left out.
// To write the defaults too, use WithDefaults(c).
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

// Qualify turns the queue names in settings into full names of a virtual host. The names must not
// contain a virtual host; Decode checks this.
func Qualify(c surgetank.QueueConfig, vhost string) surgetank.QueueConfig {
	if c.DeadLetter == DeadLetterDoor {
		c.DeadLetter = fullname.Of(DoorVhost, vhost)
	} else if c.DeadLetter != "" && c.DeadLetter != surgetank.DeadLetterDrop {
		c.DeadLetter = fullname.Of(vhost, c.DeadLetter)
	}
	return c
}

// Unqualify reverses Qualify, for output.
func Unqualify(c surgetank.QueueConfig) surgetank.QueueConfig {
	vhost, name := fullname.Split(c.DeadLetter)
	if c.DeadLetter = name; vhost == DoorVhost {
		c.DeadLetter = DeadLetterDoor
	}
	return c
}

// DoorVhost is the virtual host of the queues that doors use internally. No virtual host of users
// can have this name.
const DoorVhost = "amq.internal"

// DeadLetterDoor is the written form of dead_letter if a door routes the dead letters of a virtual
// host itself. These dead letters are stored in the queue of DoorVhost with the virtual host's
// name.
const DeadLetterDoor = "amq.dead-letters"

// keysOf returns the keys directly below a prefix.
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

// distance returns the Levenshtein distance of two keys. Long strings get a large distance, because
// they are not typing errors.
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

// kind returns the name of a value's type for an error.
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
