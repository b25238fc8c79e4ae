package httpapi

import (
	"net/http"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/policy"
)

// policies returns the Broker with policies, or an error if this server has none.
func (c *call) policies() (*policy.Broker, error) {
	if c.api.opts.Policies == nil {
		return nil, surgetank.Errorf(surgetank.CodeNotFound, "this server has no policies")
	}
	return c.api.opts.Policies, nil
}

func (c *call) listPolicies() error {
	q, err := c.query()
	if err != nil {
		return err
	}
	p, err := c.policies()
	if err != nil {
		return err
	}
	return c.respond(http.StatusOK, policiesAnswer{p.Policies(q.text("vhost"))})
}

func (c *call) getPolicy() error {
	if _, err := c.query(); err != nil {
		return err
	}
	return c.showPolicy(http.StatusOK)
}

func (c *call) showPolicy(status int) error {
	p, err := c.policies()
	if err != nil {
		return err
	}
	found, err := p.GetPolicy(c.vhost(), c.params["p"])
	if err != nil {
		return err
	}
	return c.respond(status, found)
}

// putPolicy creates a policy or replaces it. When it answers, the new settings apply to every
// queue.
func (c *call) putPolicy() error {
	if _, err := c.query(); err != nil {
		return err
	}
	p, err := c.policies()
	if err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	want := readPolicy(f, &c.api.limits)
	want.Vhost, want.Name = c.vhost(), c.params["p"]
	if err := f.done(); err != nil {
		return err
	}
	created, err := p.PutPolicy(c.r.Context(), want)
	if err != nil {
		return err
	}
	return c.showPolicy(createdStatus(created))
}

func readPolicy(f *fields, _ *Limits) policy.Policy {
	f.need("pattern")
	f.need("settings")
	return policy.Policy{
		Pattern:  f.text("pattern", policy.MaxPatternLen),
		ApplyTo:  policy.Target(f.choice("apply_to", "queues", "quorum_queues", "classic_queues", "streams", "exchanges", "all")),
		Priority: int(f.integer("priority", -policy.MaxPriority, policy.MaxPriority, 0)),
		Settings: f.tree("settings", "PolicySettings"),
	}
}

func (c *call) deletePolicy() error {
	p, err := c.policies()
	if err != nil {
		return err
	}
	return c.deleted(func() error { return p.DeletePolicy(c.r.Context(), c.vhost(), c.params["p"]) })
}

func (c *call) listTopicPermissions() error {
	q, err := c.query()
	if err != nil {
		return err
	}
	return c.respond(http.StatusOK, topicsAnswer{c.api.opts.Auth.TopicPermissions(q.text("user"), q.text("vhost"))})
}

func (c *call) putTopicPermission() error {
	if _, err := c.query(); err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	t := readTopicPermission(f, &c.api.limits)
	t.Exchange = c.params["x"]
	if err := f.done(); err != nil {
		return err
	}
	if err := c.api.opts.Auth.PutTopicPermission(c.r.Context(), c.params["u"], c.vhost(), t); err != nil {
		return err
	}
	return c.respond(http.StatusOK, auth.TopicPermissionInfo{User: c.params["u"], Vhost: c.vhost(), TopicPermission: t})
}

func readTopicPermission(f *fields, _ *Limits) auth.TopicPermission {
	f.need("write")
	f.need("read")
	return auth.TopicPermission{Write: f.text("write", auth.MaxPatternLen), Read: f.text("read", auth.MaxPatternLen)}
}

func (c *call) deleteTopicPermission() error {
	return c.deleted(func() error {
		return c.api.opts.Auth.DeleteTopicPermission(c.r.Context(), c.params["u"], c.vhost(), c.params["x"])
	})
}

// limit reads an optional limit. If it is missing, there is no limit.
func (f *fields) limit(name string) *int {
	n := int(f.integer(name, 0, auth.MaxLimit, -1))
	if n < 0 {
		return nil
	}
	return &n
}

func readVhostLimits(f *fields, _ *Limits) auth.VhostLimits {
	return auth.VhostLimits{MaxConnections: f.limit("max_connections"), MaxQueues: f.limit("max_queues")}
}

func readUserLimits(f *fields, _ *Limits) auth.UserLimits {
	return auth.UserLimits{MaxConnections: f.limit("max_connections"), MaxChannels: f.limit("max_channels"), MaxConsumers: f.limit("max_consumers")}
}

func (c *call) putVhostLimits() error {
	if _, err := c.query(); err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	l := readVhostLimits(f, &c.api.limits)
	if err := f.done(); err != nil {
		return err
	}
	if err := c.api.opts.Auth.PutVhostLimits(c.r.Context(), c.params["v"], l); err != nil {
		return err
	}
	v, err := c.api.opts.Auth.GetVhost(c.params["v"])
	if err != nil {
		return err
	}
	return c.respond(http.StatusOK, v)
}

func (c *call) putUserLimits() error {
	if _, err := c.query(); err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	l := readUserLimits(f, &c.api.limits)
	if err := f.done(); err != nil {
		return err
	}
	if err := c.api.opts.Auth.PutUserLimits(c.r.Context(), c.params["u"], l); err != nil {
		return err
	}
	u, err := c.api.opts.Auth.GetUser(c.params["u"])
	if err != nil {
		return err
	}
	return c.respond(http.StatusOK, u)
}
