package lint

import (
	"go/parser"
	"strings"
	"testing"
)

// layers contains the layer of each package. The longest listed prefix of a package's path decides.
// A package imports packages of lower layers and its own subpackages. The second digit is a
// sublayer: a package may also import from a lower sublayer of its own layer. Every package must be
// listed, so that the layer of a new package is a decision.
var layers = map[string]int{
	"internal/hidden":   0, // internals of the root package that other packages need
	"":                  1,
	"internal/fullname": 2, // names of queues with their virtual hosts
	"internal/door":     2, // the interface of the broker for doors and sinks, which users do not see

	"internal/clock":      10, // helpers of layer 1, for time, files and other things below the machine
	"internal/overlay":    10, // builds from changed copies of the source; test builds alone use it
	"internal/mutant":     11,
	"internal/failpoint":  11,
	"internal/vfs":        10,
	"internal/dataformat": 10, // the format levels of a data directory
	"internal/jsonpath":   10,
	"internal/settings":   10,
	"internal/msgopt":     11, // the options of messages, as the doors write them
	"internal/input":      12, // splits text into messages
	"internal/callback":   10, // protected calls of users' functions
	"internal/lobby":      10, // limits on connections without a login
	"internal/localtoken": 10, // the login of programs on the server's own computer
	"internal/tally":      10, // counts of refusals by limits
	"internal/digest":     10, // summaries of many events in few log lines
	"internal/inorder":    10, // the order of one caller's publishes and settlements
	"internal/seqset":     10, // sets of message numbers
	"internal/adapt":      10, // the adaptive limit of a target
	"internal/breaker":    10, // whether a target is down
	"internal/queue":      11, // the rules of queues
	"internal/commitlog":  11, // the interface of logs
	"internal/metacache":  10, // the cache of metadata
	"internal/auth":       11, // users and permissions
	"internal/policy":     12, // settings by patterns of names

	"internal/disklog":             20, // the logs
	"internal/memlog":              20,
	"internal/jetlog/fenced":       20, // the protocol of a log with many possible owners
	"internal/jetlog/fenced/model": 21,
	"internal/jetlog":              22, // that protocol on NATS JetStream
	"internal/lease":               20, // which node owns which log; rules, below it, decides

	"internal/broker":    30, // the loop
	"internal/supervise": 30, // a broker that is opened again below its callers; imports no broker
	"internal/shards":    30, // the router in front of several loops; it does not import the loop

	"internal/amqp/wire":       40, // doors and consumers; the packages of the AMQP door, lowest first
	"internal/amqp/amqptest":   41,
	"internal/amqp/translate":  41,
	"internal/amqp/topology":   42,
	"internal/amqp/session":    43,
	"internal/amqp/management": 44,
	"internal/amqp":            45,

	"internal/httpapi":   40,
	"internal/dashboard": 40,
	"sink":               40,
	"worker":             40,
	"brokertest":         40,

	"embedded":        50, // assembly
	"client":          50,
	"cluster":         50,
	"internal/config": 50,
	"internal/sim":    50,
	"internal/server": 51,
	"serve":           52, // the doors, for an embedded broker

	"cmd":               60, // programs
	"bench":             61, // above test/kit, which it uses
	"test":              60,
	"internal/lint":     60,
	"internal/pgtest":   59, // a temporary PostgreSQL, for tests and benchmarks
	"internal/natstest": 59, // a temporary NATS cluster, for tests
}

// house returns the directory that the packages of one door share. Imports between these packages
// are allowed if they point down.
func house(entry string) string {
	if entry == "internal/amqp" || strings.HasPrefix(entry, "internal/amqp/") {
		return "internal/amqp"
	}
	return entry
}

// doorsMayImport lists the packages of the module that layer 4 may import, in addition to own
// subpackages: the root package, permissions and helpers. Doors and consumers must import neither
// each other nor the engine.
var doorsMayImport = map[string]bool{
	"": true, "internal/hidden": true, "internal/fullname": true, "internal/door": true, "internal/door/doortest": true, "internal/auth": true, "internal/metacache": true, "internal/clock": true, "internal/jsonpath": true, "internal/settings": true, "internal/msgopt": true,
	"internal/policy": true, "internal/input": true, "internal/callback": true, "internal/lobby": true, "internal/seqset": true,
	"internal/tally": true, "internal/digest": true, "internal/inorder": true, "internal/adapt": true,
}

// layerOf returns a package's layer and the entry of the table that decided it.
func layerOf(pkg string) (layer int, entry string, ok bool) {
	for p := pkg; ; {
		if f, found := layers[p]; found && (p != "" || pkg == "") {
			return f, p, true
		}
		i := strings.LastIndexByte(p, '/')
		if i < 0 {
			return 0, "", false
		}
		p = p[:i]
	}
}

func TestImportsOnlyPointDown(t *testing.T) {
	fset, files := load(t, parser.ImportsOnly)
	for _, f := range files {
		if f.test {
			continue // tests may import any package: a log's test opens a broker, a door's test opens an engine
		}
		from, entry, ok := layerOf(f.pkg)
		if !ok {
			t.Errorf("%s: package %s has no layer; add it to the table in internal/lint/layers_test.go", f.path, f.pkg)
			continue
		}
		for path, pos := range imports(f) {
			target, mine := own(path)
			if !mine {
				if entry == "" && strings.Contains(strings.SplitN(path, "/", 2)[0], ".") {
					t.Errorf("%s: the root package imports %s; it imports the standard library only, so that using Surgetank's words costs a program nothing",
						fset.Position(pos), path)
				}
				continue
			}
			to, toEntry, ok := layerOf(target)
			switch {
			case !ok:
				t.Errorf("%s: imports %s, which has no layer", fset.Position(pos), path)
			case entry == toEntry:
				// A package may import its own subpackages.
			case to >= from:
				t.Errorf("%s: %s (layer %d) imports %s (layer %d); imports only point down", fset.Position(pos), f.pkg, from, target, to)
			case from/10 == 4 && house(entry) != house(toEntry) && !doorsMayImport[target]:
				t.Errorf("%s: %s imports %s; doors and consumers import the root package and internal/auth only (and pure helpers): they speak to the Broker interface",
					fset.Position(pos), f.pkg, target)
			}
		}
	}
}

func TestLayerOf(t *testing.T) {
	for pkg, want := range map[string]int{"": 1, "internal/queue": 11, "internal/amqp/wire": 40, "internal/amqp": 45, "sink/postgres": 40, "cmd/surgetank": 60} {
		if got, _, ok := layerOf(pkg); !ok || got != want {
			t.Errorf("layerOf(%q) = %d, %v; want %d", pkg, got, ok, want)
		}
	}
	for _, pkg := range []string{"internal", "internal/new", "other"} {
		if _, entry, ok := layerOf(pkg); ok {
			t.Errorf("layerOf(%q) found %q; an unlisted package must have no layer", pkg, entry)
		}
	}
}
