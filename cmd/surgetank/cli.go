package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/cmd/surgetank/internal/feed"
)

// Exit codes. Scripts rely on them; see docs/cli.md.
const (
	exitOK     = 0 // everything requested is done
	exitFailed = 1 // something was not done; stderr says what and why
	exitUsage  = 2 // the command line was wrong; nothing was tried
)

// commands is the whole command line. Each field's type is in a file of its own.
type commands struct {
	Serve serveCmd `cmd:"" help:"Run a server."`
	Demo  demoCmd  `cmd:"" help:"Show a spike of writes landing on disk and draining into a database."`

	Publish publishCmd `cmd:"" help:"Send every line of the input as one message."`
	Consume consumeCmd `cmd:"" help:"Print messages."`
	Queue   queueCmds  `cmd:"" help:"Queues: list, show, set, remove, purge, pause, resume, peek, redrive, move."`
	Sink    sinkCmds   `cmd:"" help:"Sinks: consumers inside the server that write to a database."`
	Policy  policyCmds `cmd:"" help:"Policies: settings for queues and exchanges by patterns of their names."`
	Apply   applyCmd   `cmd:"" help:"Make policies, queues and sinks match a file."`
	Check   checkCmd   `cmd:"" help:"Check a configuration file."`
	User    userCmds   `cmd:"" help:"Users and their permissions."`
	Vhost   vhostCmds  `cmd:"" help:"Virtual hosts."`

	Verify  verifyCmd  `cmd:"" help:"Read every byte of a stopped server's data, and say what is damaged."`
	Inspect inspectCmd `cmd:"" help:"List the entries of a stopped server's log, or decode one."`
	Repair  repairCmd  `cmd:"" help:"Copy the undamaged part of a damaged data directory into a new one."`

	Bench benchCmd `cmd:"" help:"Measure a server: publishes and acks a second."`

	Version versionCmd `cmd:"" help:"Print the version."`
}

// session is the input of a subcommand besides its flags. stdout gets output only; progress, notes
// and errors go to stderr. So stdout can always be piped.
type session struct {
	ctx    context.Context // ends at SIGINT and SIGTERM
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

// failure is an error that has already been reported, or that has an exit code of its own.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// run parses a command line, runs the command and returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := &session{ctx, stdin, stdout, stderr}

	exited := -1
	parser, err := kong.New(&commands{},
		kong.Name("surgetank"),
		kong.Description("A durable queue for writes: on disk before it says yes, applied at the rate your database can take."),
		kong.Writers(stdout, stderr),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.Exit(func(c int) {
			if exited < 0 {
				exited = c
			}
		}),
		kong.Bind(s),
		kong.Vars{"lanes": strconv.Itoa(feed.DefaultLanes), "batch_lines": strconv.Itoa(feed.DefaultBatchLines)},
	)
	if err != nil {
		fmt.Fprintln(stderr, "surgetank: the command line is defined wrongly; report this:", err)
		return exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if exited >= 0 { // --help printed and asked to exit
		return exited
	}
	if err != nil {
		fmt.Fprintf(stderr, "surgetank: %v; see surgetank --help\n", err)
		return exitUsage
	}
	return report(stderr, command.Run())
}

// report prints an error: what happened, and then what to do if the error code says more.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "surgetank: %v\n", err)
	if f := (*failure)(nil); errors.As(err, &f) {
		return f.code
	}
	if e := (*surgetank.Error)(nil); errors.As(err, &e) && e.RetryAfter > 0 {
		fmt.Fprintf(stderr, "surgetank: try again after %v\n", e.RetryAfter)
	}
	return exitFailed
}
