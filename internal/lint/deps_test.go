package lint

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// forbidden lists, for packages that users' programs link, the packages that they must not depend
// on, and why.
var forbidden = []struct {
	pkg, why string
	deps     []string // an import path or, with a trailing slash, all packages below the path
}{
	{"", "the words are for everybody: importing them must cost a program nothing",
		[]string{"net/", "net", "os/exec", "github.com/jackc/", "modernc.org/", "github.com/nats-io/"}},
	{"client", "a client links no engine, no database driver and no server",
		[]string{module + "/internal/broker", module + "/internal/queue", module + "/internal/disklog", module + "/internal/memlog",
			module + "/embedded", module + "/internal/server", module + "/internal/jetlog", "github.com/nats-io/", "github.com/jackc/", "modernc.org/", "github.com/goccy/", "gopkg.in/"}},
	{"embedded", "a queue inside a program brings no doors, drivers or configuration files",
		[]string{module + "/internal/server", module + "/internal/httpapi", module + "/internal/amqp", module + "/sink",
			"net/http", "github.com/jackc/", "modernc.org/", "github.com/goccy/", "gopkg.in/", "github.com/nats-io/"}},
	{"internal/lease", "a node is a client of NATS; the server runs elsewhere",
		[]string{"github.com/nats-io/nats-server/", module + "/internal/natstest"}},
	{"internal/jetlog", "the log is a client of NATS; the server runs elsewhere",
		[]string{"github.com/nats-io/nats-server/", module + "/internal/natstest"}},
	{"worker", "running handlers needs the Broker interface alone",
		[]string{module + "/internal/broker", module + "/internal/queue", module + "/internal/disklog", "github.com/jackc/", "modernc.org/"}},
	{"cmd/surgetank", "the binary people run must not carry test helpers",
		[]string{"github.com/google/go-cmp/", "pgregory.net/", "go.uber.org/goleak", module + "/brokertest", module + "/internal/commitlog/commitlogtest",
			module + "/internal/mutant", module + "/internal/failpoint", module + "/internal/overlay", module + "/internal/pgtest", module + "/internal/natstest", "github.com/nats-io/nats-server/", module + "/internal/jetlog/fenced/model", module + "/internal/amqp/amqptest", module + "/sink/sinktest", module + "/internal/door/doortest", "github.com/hanwen/", "github.com/anishathalye/"}},
}

func TestForbiddenDependencies(t *testing.T) {
	top := root(t)
	for _, rule := range forbidden {
		if matches, _ := filepath.Glob(filepath.Join(top, rule.pkg, "*.go")); len(matches) == 0 {
			continue // the package does not exist yet
		}
		cmd := exec.Command("go", "list", "-deps", "./"+rule.pkg)
		cmd.Dir, cmd.Stderr = top, os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list -deps ./%s: %v", rule.pkg, err)
		}
		for dep := range strings.FieldsSeq(string(out)) {
			for _, bad := range rule.deps {
				if dep == bad || strings.HasSuffix(bad, "/") && strings.HasPrefix(dep, bad) {
					t.Errorf("package %q links %s: %s", rule.pkg, dep, rule.why)
				}
			}
		}
	}
}
