//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	amqp "github.com/rabbitmq/amqp091-go"

	kit "github.com/surgetank/surgetank/test/kit/server"
)

// target is a server and a kind of queue to measure.
type target struct {
	name    string
	args    amqp.Table // arguments of every declared queue
	confirm string     // the meaning of a confirm, from the server's own documentation
	// prepare makes a server with an empty directory. It does not start the server.
	prepare func(o *options, dir string) (*server, error)
}

var targets = []target{
	{classic, amqp.Table{"x-queue-type": "classic", "x-queue-version": 2}, "written, not synced: lost at a power cut", prepareRabbitMQ},
	{quorum, amqp.Table{"x-queue-type": "quorum"}, "synced", prepareRabbitMQ},
	{surgetank, nil, "synced", prepareSurgetank},
	{anyServer, nil, "as that server promises", prepareExternal},
	{floor, nil, "read, and forgotten", prepareFloor},
}

// pickTargets returns the targets with the given names, separated by commas.
func pickTargets(names string) ([]target, error) {
	var picked []target
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(targets, func(t target) bool { return t.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-targets: there is no target %q; there are %s, %s, %s, %s (keeps nothing: what any server costs) and %s (any server, with -addr)", name, classic, quorum, surgetank, floor, anyServer)
		}
		picked = append(picked, targets[i])
	}
	return picked, nil
}

// launch starts a target with an empty directory and waits until it answers.
func (t target) launch(ctx context.Context, o *options, dir string) (*server, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	s, err := t.prepare(o, dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err = s.start(); err == nil {
		err = s.awaitReady(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.discard())
	}
	return s, nil
}

// prepareRabbitMQ sets up a node that shares nothing with an installed node. It has its own
// directory, ports, node name and name server (epmd), no plugins, and otherwise defaults. If this
// program runs as root, the node runs as the package's user.
func prepareRabbitMQ(o *options, dir string) (*server, error) {
	if err := findRabbitMQ(o); err != nil {
		return nil, err
	}
	epmd, err := exec.LookPath("epmd")
	if err != nil {
		return nil, fmt.Errorf("epmd, Erlang's name server, is not on the PATH; it comes with the Debian package rabbitmq-server: %w", err)
	}
	credential, err := rabbitUser(dir)
	if err != nil {
		return nil, err
	}
	var ports [3]string
	for i := range ports {
		addr, err := kit.FreeAddress()
		if err != nil {
			return nil, err
		}
		_, ports[i], _ = net.SplitHostPort(addr) // the address has a port
	}
	for name, text := range map[string]string{
		"enabled_plugins": "[].\n",
		"rabbitmq.conf":   "log.file.level = warning\nlog.console = false\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	env := []string{
		"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "HOME=" + dir,
		"RABBITMQ_NODENAME=bench-" + ports[0] + "@localhost",
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT=" + ports[0], "RABBITMQ_DIST_PORT=" + ports[1],
		"ERL_EPMD_ADDRESS=127.0.0.1", "ERL_EPMD_PORT=" + ports[2],
		"RABBITMQ_MNESIA_BASE=" + in("mnesia"), "RABBITMQ_LOG_BASE=" + in("log"), "RABBITMQ_PID_FILE=" + in("pid"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + in("enabled_plugins"), "RABBITMQ_CONFIG_FILE=" + in("rabbitmq"),
		"RABBITMQ_ADVANCED_CONFIG_FILE=" + in("advanced.config"), "RABBITMQ_CONF_ENV_FILE=" + in("rabbitmq-env.conf"), // not the machine's files
	}
	// epmd runs as a child process and ends with this program. Otherwise the node would start it as
	// a daemon.
	aside := command([]string{epmd, "-port", ports[2], "-address", "127.0.0.1"}, env, credential)
	aside.Dir = dir
	if err := aside.Start(); err != nil {
		return nil, fmt.Errorf("cannot start epmd: %w", err)
	}
	return &server{addr: "127.0.0.1:" + ports[0], user: "guest", pass: "guest", dir: dir,
		argv: []string{o.rabbitmq}, env: env, credential: credential, aside: aside}, nil
}

// findRabbitMQ checks that RabbitMQ is installed. Its error says what to install.
func findRabbitMQ(o *options) error {
	if _, err := os.Stat(o.rabbitmq); err != nil {
		return fmt.Errorf("RabbitMQ is not at %s: install the Debian package rabbitmq-server (apt-get install rabbitmq-server), give the path of its bin/rabbitmq-server with -rabbitmq, or leave its targets out with -targets %s", o.rabbitmq, surgetank)
	}
	return nil
}

// rabbitUser returns the user that RabbitMQ must run as, or nil for the current user. It makes this
// user the owner of the directory.
func rabbitUser(dir string) (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("rabbitmq")
	if err != nil {
		return nil, fmt.Errorf("root runs RabbitMQ as the user rabbitmq of the Debian package rabbitmq-server: %w", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2, os.Chown(dir, int(uid), int(gid))); err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// prepareSurgetank sets up `surgetank serve` as a user would run it.
func prepareSurgetank(o *options, dir string) (*server, error) {
	addr, err := kit.FreeAddress()
	if err != nil {
		return nil, err
	}
	web, err := kit.FreeAddress()
	if err != nil {
		return nil, err
	}
	argv := []string{o.surgetank, "serve", "--data", filepath.Join(dir, "data"), "--amqp", addr, "--http", web}
	return &server{addr: addr, user: "guest", pass: "guest", dir: dir, argv: append(argv, strings.Fields(o.serveFlags)...), env: os.Environ()}, nil
}

// prepareExternal uses a server that is already running.
func prepareExternal(o *options, dir string) (*server, error) {
	if o.addr == "" {
		return nil, fmt.Errorf("the target %q needs -addr HOST:PORT of a running server", anyServer)
	}
	name, pass, ok := strings.Cut(o.login, ":")
	if !ok {
		return nil, fmt.Errorf("-login must be USER:PASSWORD, not %q", o.login)
	}
	return &server{addr: o.addr, user: name, pass: pass, watch: o.pid, dir: dir}, nil
}
