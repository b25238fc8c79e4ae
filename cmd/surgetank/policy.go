package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/policy"
)

// policyCmds are the commands for policies: settings for queues and exchanges, selected by patterns
// of their names.
type policyCmds struct {
	Ls   policyLsCmd   `cmd:"" aliases:"list" help:"List policies."`
	Show policyShowCmd `cmd:"" help:"Show a policy."`
	Set  policySetCmd  `cmd:"" help:"Create a policy, or replace it."`
	Rm   policyRmCmd   `cmd:"" aliases:"delete" help:"Remove a policy; its queues get back what they were declared with."`
}

type policyLsCmd struct {
	remote
	output
}

func (c *policyLsCmd) Run(s *session) error {
	var answer struct {
		Policies []policy.Policy `json:"policies"`
	}
	if err := c.call(s.ctx, http.MethodGet, nil, &answer, "policies"); err != nil {
		return err
	}
	return c.print(s.stdout, answer.Policies, func(w io.Writer) error {
		return table(w, "VHOST POLICY PATTERN APPLIES-TO PRIORITY SETTINGS", func(row func(...any)) {
			for _, p := range answer.Policies {
				row(printable(p.Vhost), printable(p.Name), printable(p.Pattern), p.ApplyTo, p.Priority, printable(showSettings(p.Settings)))
			}
		})
	})
}

// showSettings writes a policy's settings in one line, in the form that policy set accepts.
func showSettings(tree map[string]any) string {
	flat := map[string]any{}
	flatten(flat, "", tree)
	list := make([]string, 0, len(flat))
	for k, v := range flat {
		if n, ok := v.(float64); ok { // JSON decodes numbers as float64: print 86400000, not 8.64e+07
			v = strconv.FormatFloat(n, 'f', -1, 64)
		}
		list = append(list, fmt.Sprintf("%s=%v", k, v))
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

type policyArg struct {
	Policy string `arg:"" help:"The policy's name."`
	vhostFlag
	remote
	output
}

func (c *policyArg) printPolicy(s *session, p policy.Policy, did string) error {
	return c.print(s.stdout, p, func(w io.Writer) error {
		if did != "" {
			_, err := fmt.Fprintf(w, "%s policy %s\n", did, printable(p.Name))
			return err
		}
		return table(w, "POLICY PATTERN APPLIES-TO PRIORITY SETTINGS", func(row func(...any)) {
			row(printable(p.Name), printable(p.Pattern), p.ApplyTo, p.Priority, printable(showSettings(p.Settings)))
		})
	})
}

type policyShowCmd struct{ policyArg }

func (c *policyShowCmd) Run(s *session) error {
	var p policy.Policy
	if err := c.call(s.ctx, http.MethodGet, nil, &p, "vhosts", c.Vhost, "policies", c.Policy); err != nil {
		return err
	}
	return c.printPolicy(s, p, "")
}

type policySetCmd struct {
	policyArg
	Pattern  string   `arg:"" help:"Regular expression (RE2) for the names it applies to. It is looked for anywhere in a name: write ^orders[.] for names that begin so."`
	Settings []string `arg:"" placeholder:"KEY=VALUE" help:"Settings of queues as in the configuration file (level.rate=500/s retry.max_attempts=5), or with RabbitMQ's keys (message-ttl=60000 dead-letter-exchange=dlx)."`
	ApplyTo  string   `enum:"queues,quorum_queues,classic_queues,streams,exchanges,all" default:"all" help:"queues, quorum_queues, classic_queues, streams, exchanges or all."`
	Priority int      `default:"0" help:"If several policies match a name, only the one with the highest priority applies."`
}

func (c *policySetCmd) Run(s *session) error {
	tree := map[string]any{}
	for _, kv := range c.Settings {
		if err := setKey(tree, kv); err != nil {
			return err
		}
	}
	prune(tree)
	// RabbitMQ's names of exchanges and keys are text, even if they look like numbers.
	for _, k := range []string{"dead-letter-exchange", "dead-letter-routing-key", "alternate-exchange"} {
		if v, ok := tree[k]; ok {
			tree[k] = fmt.Sprint(v)
		}
	}
	body := map[string]any{"pattern": c.Pattern, "apply_to": c.ApplyTo, "priority": c.Priority, "settings": tree}
	var p policy.Policy
	if err := c.call(s.ctx, http.MethodPut, body, &p, "vhosts", c.Vhost, "policies", c.Policy); err != nil {
		return err
	}
	return c.printPolicy(s, p, "set")
}

type policyRmCmd struct{ policyArg }

func (c *policyRmCmd) Run(s *session) error {
	if err := c.call(s.ctx, http.MethodDelete, nil, nil, "vhosts", c.Vhost, "policies", c.Policy); err != nil {
		return err
	}
	return c.done(s, deletedShape{true}, "removed policy %s\n", c.Policy)
}

// planPolicy compares a policy of a file with the server's.
func (c *applyCmd) planPolicy(s *session, p policy.Policy) (*change, error) {
	ch := &change{Kind: "policy", Name: p.Name, Action: "create"}
	var now policy.Policy
	switch err := c.call(s.ctx, http.MethodGet, nil, &now, "vhosts", p.Vhost, "policies", p.Name); surgetank.CodeOf(err) {
	case "":
		ch.Action = "change"
		if policy.Same(now, p) {
			ch.Action = "keep"
			return ch, nil
		}
	case surgetank.CodeNotFound:
	default:
		return nil, err
	}
	body, err := json.Marshal(map[string]any{"pattern": p.Pattern, "apply_to": p.ApplyTo, "priority": p.Priority, "settings": p.Settings})
	if err != nil {
		return nil, err
	}
	ch.do = policyChange(c.remote, p, body)
	return ch, nil
}
