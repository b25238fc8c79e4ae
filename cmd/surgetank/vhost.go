package main

import (
	"io"
	"net/http"
	"time"

	"github.com/surgetank/surgetank/internal/auth"
)

// vhostCmds are the commands on virtual hosts: name spaces of queues with permissions of their own.
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

type vhostRmCmd struct{ vhostArg }

func (c *vhostRmCmd) Run(s *session) error {
	if err := c.call(s.ctx, http.MethodDelete, nil, nil, "vhosts", c.Name); err != nil {
		return err
	}
	return c.done(s, deletedShape{true}, "removed virtual host %s\n", c.Name)
}
