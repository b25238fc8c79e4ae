package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/surgetank/surgetank/internal/auth"
)

// userCmds are the commands for users and their permissions.
type userCmds struct {
	Ls    userLsCmd    `cmd:"" help:"List users."`
	Set   userSetCmd   `cmd:"" help:"Create a user, or change its password or tags."`
	Rm    userRmCmd    `cmd:"" help:"Remove a user; its connections end."`
	Allow userAllowCmd `cmd:"" help:"Set a user's permissions in a virtual host."`
	Deny  userDenyCmd  `cmd:"" help:"Remove all permissions in a virtual host."`
	Perms userPermsCmd `cmd:"" help:"List permissions."`

	AllowTopic userAllowTopicCmd `cmd:"" help:"Set the keys with which a user may use a topic exchange."`
	FreeTopic  userFreeTopicCmd  `cmd:"" help:"Let a user use every key of a topic exchange again."`
	Topics     userTopicsCmd     `cmd:"" help:"List topic permissions."`
	Limits     userLimitsCmd     `cmd:"" help:"Limit a user's connections and channels."`
}

type userLsCmd struct {
	remote
	output
}

func (c *userLsCmd) Run(s *session) error {
	var answer struct {
		Users []auth.UserInfo `json:"users"`
	}
	if err := c.call(s.ctx, http.MethodGet, nil, &answer, "users"); err != nil {
		return err
	}
	return c.print(s.stdout, answer.Users, func(w io.Writer) error {
		return table(w, "USER TAGS FROM", func(row func(...any)) {
			for _, u := range answer.Users {
				from := "anywhere"
				if u.LoopbackOnly {
					from = "this machine"
				}
				row(printable(u.Name), printable(strings.Join(u.Tags, ",")), from)
			}
		})
	})
}

type userArg struct {
	User string `arg:"" help:"The user's name."`
	remote
	output
}

type userSetCmd struct {
	userArg
	Password      bool     `help:"Ask for the password (without a terminal: the first line of standard input). A new user needs one."`
	Tags          []string `sep:"," placeholder:"TAG" help:"administrator, monitoring, or others that have no effect here. --tags= removes all."`
	LoopbackOnly  bool     `xor:"where" help:"Let it log in from this machine only."`
	FromElsewhere bool     `xor:"where" help:"Let it log in from other machines too."`
}

func (c *userSetCmd) Run(s *session) error {
	spec := map[string]any{}
	if c.Password {
		p, err := readPassword(s)
		if err != nil {
			return err
		}
		spec["password"] = p
	}
	if c.Tags != nil {
		tags := []string{}
		for _, t := range c.Tags {
			if t = strings.TrimSpace(t); t != "" {
				tags = append(tags, t)
			}
		}
		spec["tags"] = tags
	}
	if c.LoopbackOnly || c.FromElsewhere {
		spec["loopback_only"] = c.LoopbackOnly
	}
	var u auth.UserInfo
	if err := c.call(s.ctx, http.MethodPut, spec, &u, "users", c.User); err != nil {
		return err
	}
	if err := c.done(s, u, "set user %s\n", c.User); err != nil {
		return err
	}
	var answer struct {
		Permissions []auth.PermissionInfo `json:"permissions"`
	}
	if _, err := c.ask(s.ctx, http.MethodGet, url.Values{"user": {c.User}}.Encode(), nil, &answer, "permissions"); err != nil {
		return err
	}
	if len(answer.Permissions) == 0 {
		fmt.Fprintf(s.stderr, "note: user %s may use no queue yet; surgetank user allow %[1]s --all lets it use all queues of the default virtual host\n", printable(c.User))
	}
	return nil
}

// readPassword reads a password from the terminal or standard input. It never reads a password from
// the command line, which every user of the machine can see.
func readPassword(s *session) (string, error) {
	if f, ok := s.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(s.stderr, "password: ")
		first, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(s.stderr)
		if err != nil {
			return "", err
		}
		fmt.Fprint(s.stderr, "again: ")
		second, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(s.stderr)
		if err != nil {
			return "", err
		}
		if string(first) != string(second) {
			return "", errors.New("the two passwords differ; nothing was changed")
		}
		return string(first), nil
	}
	line, err := bufio.NewReader(io.LimitReader(s.stdin, auth.MaxPasswordLen+2)).ReadString('\n')
	if err != nil && (!errors.Is(err, io.EOF) || line == "") {
		return "", fmt.Errorf("reading the password from standard input: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// done prints the result of a command.
func (o output) done(s *session, v any, format string, names ...any) error {
	return o.print(s.stdout, v, func(w io.Writer) error {
		for i, n := range names {
			names[i] = printable(fmt.Sprint(n))
		}
		_, err := fmt.Fprintf(w, format, names...)
		return err
	})
}

type deletedShape struct {
	Deleted bool `json:"deleted"`
}

type userRmCmd struct{ userArg }

func (c *userRmCmd) Run(s *session) error {
	if err := c.call(s.ctx, http.MethodDelete, nil, nil, "users", c.User); err != nil {
		return err
	}
	return c.done(s, deletedShape{true}, "removed user %s\n", c.User)
}

type userAllowCmd struct {
	userArg
	vhostFlag
	Configure string `default:"" placeholder:"RE" help:"Queues and exchanges it may declare, change and delete, as a regular expression for the whole name; empty: none."`
	Write     string `default:"" placeholder:"RE" help:"Those it may publish to."`
	Read      string `default:"" placeholder:"RE" help:"Those it may consume from."`
	All       bool   `help:"Everything: .* for all three."`
}

func (c *userAllowCmd) Run(s *session) error {
	p := map[string]string{"configure": c.Configure, "write": c.Write, "read": c.Read}
	if c.All {
		p = map[string]string{"configure": ".*", "write": ".*", "read": ".*"}
	}
	var out auth.PermissionInfo
	if err := c.call(s.ctx, http.MethodPut, p, &out, "vhosts", c.Vhost, "permissions", c.User); err != nil {
		return err
	}
	return c.done(s, out, "user %s may now use virtual host %s\n", c.User, c.Vhost)
}

type userDenyCmd struct {
	userArg
	vhostFlag
}

func (c *userDenyCmd) Run(s *session) error {
	if err := c.call(s.ctx, http.MethodDelete, nil, nil, "vhosts", c.Vhost, "permissions", c.User); err != nil {
		return err
	}
	return c.done(s, deletedShape{true}, "user %s may no longer use virtual host %s\n", c.User, c.Vhost)
}

type userPermsCmd struct {
	remote
	output
}

func (c *userPermsCmd) Run(s *session) error {
	var answer struct {
		Permissions []auth.PermissionInfo `json:"permissions"`
	}
	if err := c.call(s.ctx, http.MethodGet, nil, &answer, "permissions"); err != nil {
		return err
	}
	return c.print(s.stdout, answer.Permissions, func(w io.Writer) error {
		return table(w, "USER VHOST CONFIGURE WRITE READ", func(row func(...any)) {
			for _, p := range answer.Permissions {
				row(printable(p.User), printable(p.Vhost), printable(p.Configure), printable(p.Write), printable(p.Read))
			}
		})
	})
}
