package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/policy"
)

// limitValue is a limit on the command line: a number or "none".
type limitValue string

func (v limitValue) into(m map[string]any, name string) error {
	if v == "" || v == "none" {
		return nil
	}
	n, err := strconv.Atoi(string(v))
	if err != nil || n < 0 {
		return &failure{exitUsage, fmt.Errorf("--%s: want a number or none, not %.40q", name, string(v))}
	}
	m[jsonName[name]] = n
	return nil
}

var jsonName = map[string]string{"max-connections": "max_connections", "max-queues": "max_queues", "max-channels": "max_channels",
	"max-consumers": "max_consumers"}

func shownLimit(v *int) string {
	if v == nil {
		return "none"
	}
	return strconv.Itoa(*v)
}

type vhostLimitsCmd struct {
	vhostArg
	MaxConnections limitValue `placeholder:"N" help:"Connections that may be open at a time; none: no limit, also where it is left out."`
	MaxQueues      limitValue `placeholder:"N" help:"Queues that it may have."`
}

// Run replaces both limits.
func (c *vhostLimitsCmd) Run(s *session) error {
	body := map[string]any{}
	if err := c.MaxConnections.into(body, "max-connections"); err != nil {
		return err
	}
	if err := c.MaxQueues.into(body, "max-queues"); err != nil {
		return err
	}
	var v auth.VhostInfo
	if err := c.call(s.ctx, http.MethodPut, body, &v, "vhosts", c.Name, "limits"); err != nil {
		return err
	}
	return c.done(s, v, "virtual host %s: connections %s, queues %s\n", c.Name, shownLimit(v.Limits.MaxConnections), shownLimit(v.Limits.MaxQueues))
}

type userLimitsCmd struct {
	userArg
	MaxConnections limitValue `placeholder:"N" help:"Connections that it may have open at a time; none: no limit, also where it is left out."`
	MaxChannels    limitValue `placeholder:"N" help:"AMQP channels that it may have open at a time, over all its connections."`
	MaxConsumers   limitValue `placeholder:"N" help:"Consumers that it may have at a time, over all its connections; none or left out: 262144."`
}

// Run replaces all limits.
func (c *userLimitsCmd) Run(s *session) error {
	body := map[string]any{}
	if err := c.MaxConnections.into(body, "max-connections"); err != nil {
		return err
	}
	if err := c.MaxChannels.into(body, "max-channels"); err != nil {
		return err
	}
	if err := c.MaxConsumers.into(body, "max-consumers"); err != nil {
		return err
	}
	var u auth.UserInfo
	if err := c.call(s.ctx, http.MethodPut, body, &u, "users", c.User, "limits"); err != nil {
		return err
	}
	return c.done(s, u, "user %s: connections %s, channels %s, consumers %s\n", c.User, shownLimit(u.Limits.MaxConnections), shownLimit(u.Limits.MaxChannels), strconv.Itoa(u.Limits.Consumers()))
}

type userAllowTopicCmd struct {
	userArg
	Exchange string `arg:"" help:"The topic exchange."`
	vhostFlag
	Write string `default:"" placeholder:"RE" help:"Routing keys it may publish with, as a regular expression for the whole key; empty: none. {username} and {vhost} stand for those names."`
	Read  string `default:"" placeholder:"RE" help:"Binding keys it may bind with."`
}

func (c *userAllowTopicCmd) Run(s *session) error {
	var out auth.TopicPermissionInfo
	body := map[string]string{"write": c.Write, "read": c.Read}
	if err := c.call(s.ctx, http.MethodPut, body, &out, "vhosts", c.Vhost, "topic-permissions", c.User, c.Exchange); err != nil {
		return err
	}
	return c.done(s, out, "user %s may now use only these keys of exchange %s\n", c.User, c.Exchange)
}

type userFreeTopicCmd struct {
	userArg
	Exchange string `arg:"" help:"The topic exchange."`
	vhostFlag
}

func (c *userFreeTopicCmd) Run(s *session) error {
	if err := c.call(s.ctx, http.MethodDelete, nil, nil, "vhosts", c.Vhost, "topic-permissions", c.User, c.Exchange); err != nil {
		return err
	}
	return c.done(s, deletedShape{true}, "user %s may use every key of exchange %s again\n", c.User, c.Exchange)
}

type userTopicsCmd struct {
	remote
	output
}

func (c *userTopicsCmd) Run(s *session) error {
	var answer struct {
		List []auth.TopicPermissionInfo `json:"topic_permissions"`
	}
	if err := c.call(s.ctx, http.MethodGet, nil, &answer, "topic-permissions"); err != nil {
		return err
	}
	return c.print(s.stdout, answer.List, func(w io.Writer) error {
		return table(w, "USER VHOST EXCHANGE WRITE READ", func(row func(...any)) {
			for _, t := range answer.List {
				row(printable(t.User), printable(t.Vhost), printable(t.Exchange), printable(t.Write), printable(t.Read))
			}
		})
	})
}

// policyChange returns a function that stores a policy of a file.
func policyChange(r remote, p policy.Policy, body []byte) func(context.Context) error {
	return func(ctx context.Context) error {
		return r.call(ctx, http.MethodPut, json.RawMessage(body), nil, "vhosts", p.Vhost, "policies", p.Name)
	}
}
