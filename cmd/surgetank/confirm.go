package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// yesFlag is the flag of commands that destroy messages.
type yesFlag struct {
	Yes bool `short:"y" help:"Do not ask. Without a terminal nothing is asked either."`
}

// confirm asks the user on the terminal whether to continue. If the input is not a terminal, it
// asks nothing, so scripts run unchanged. ask returns the question, and is called only if the user
// is asked.
func (f yesFlag) confirm(s *session, ask func() (string, error)) error {
	tty := terminal(s.stdin)
	if f.Yes || tty == nil {
		return nil
	}
	question, err := ask()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(tty, "%s [y/N] ", question); err != nil {
		fmt.Fprintf(s.stderr, "%s [y/N] ", question) // the terminal was opened read-only
	}
	answer, err := bufio.NewReader(tty).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); err == nil && (a == "y" || a == "yes") {
		return nil
	}
	return &failure{exitFailed, errors.New("not confirmed; nothing was done (--yes does not ask)")}
}

// terminal returns the file of a command's stream, if it is a terminal.
func terminal(stream any) *os.File {
	if f, ok := stream.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}
