package main

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/settings"
)

// vhostCmds are the commands for virtual hosts: name spaces of queues with permissions of their
// own.
type vhostCmds struct {
	Ls  vhostLsCmd  `cmd:"" help:"List virtual hosts."`
	Set vhostSetCmd `cmd:"" help:"Create a virtual host, or change its description."`
	Rm  vhostRmCmd  `cmd:"" help:"Remove a virtual host with all its queues and messages."`

	Limits vhostLimitsCmd `cmd:"" help:"Limit a virtual host's connections and queues."`
}

type vhostLsCmd struct {
	remote
	output
}

func (c *vhostLsCmd) Run(s *session) error {
	var answer struct {
		Vhosts []auth.VhostInfo `json:"vhosts"`
	}
	if err := c.call(s.ctx, http.MethodGet, nil, &answer, "vhosts"); err != nil {
		return err
	}
	return c.print(s.stdout, answer.Vhosts, func(w io.Writer) error {
		return table(w, "VHOST CREATED DESCRIPTION", func(row func(...any)) {
			for _, v := range answer.Vhosts {
				row(printable(v.Name), v.Created.Format(time.RFC3339), printable(v.Description))
			}
		})
	})
}

type vhostArg struct {
	Name string `arg:"" help:"The virtual host's name."`
	remote
	output
}

type vhostSetCmd struct {
	vhostArg
	Description string `placeholder:"TEXT" help:"What it is for."`
}

func (c *vhostSetCmd) Run(s *session) error {
	var v auth.VhostInfo
	if err := c.call(s.ctx, http.MethodPut, map[string]string{"description": c.Description}, &v, "vhosts", c.Name); err != nil {
		return err
	}
	return c.done(s, v, "set virtual host %s\n", c.Name)
}

type vhostRmCmd struct {
	vhostArg
	yesFlag
	IfEmpty bool `help:"Only if its queues hold no messages."`
}

func (c *vhostRmCmd) Run(s *session) error {
	err := c.confirm(s, func() (string, error) {
		var q struct {
			Queues []settings.Queue `json:"queues"`
		}
		if err := c.call(s.ctx, http.MethodGet, nil, &q, "vhosts", c.Name, "queues"); surgetank.CodeOf(err) == surgetank.CodeDenied {
			return fmt.Sprintf("Remove virtual host %s with all its queues and messages?", printable(c.Name)), nil
		} else if err != nil {
			return "", err
		}
		n := int64(0)
		for _, one := range q.Queues {
			n += one.Ready + one.Blocked + one.Delayed + one.Leased + one.Damaged
		}
		return fmt.Sprintf("Remove virtual host %s with %s and %s?", printable(c.Name), plural(int64(len(q.Queues)), "queue"), plural(n, "message")), nil
	})
	if err != nil {
		return err
	}
	query := ""
	if c.IfEmpty {
		query = "if_empty=true"
	}
	if _, err := c.ask(s.ctx, http.MethodDelete, query, nil, nil, "vhosts", c.Name); err != nil {
		return err
	}
	return c.done(s, deletedShape{true}, "removed virtual host %s\n", c.Name)
}
