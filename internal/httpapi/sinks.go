package httpapi

import (
	"encoding/json"
	"net/http"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
)

// sinks returns the manager of sinks, or an error if there is none.
func (c *call) sinks() (Sinks, error) {
	if c.api.opts.Sinks == nil {
		return nil, surgetank.Errorf(surgetank.CodeNotFound, "this server runs no sinks; use one started by surgetank serve")
	}
	if name, ok := c.params["s"]; ok {
		if err := surgetank.ValidateName("sink", name); err != nil {
			return nil, err
		}
	}
	return c.api.opts.Sinks, nil
}

func (c *call) listSinks() error {
	if _, err := c.query(); err != nil {
		return err
	}
	m, err := c.sinks()
	if err != nil {
		return err
	}
	list, err := m.List(c.r.Context())
	if err != nil {
		return err
	}
	if list == nil {
		list = []json.RawMessage{}
	}
	return c.respond(http.StatusOK, sinksAnswer{list})
}

func (c *call) getSink() error {
	if _, err := c.query(); err != nil {
		return err
	}
	m, err := c.sinks()
	if err != nil {
		return err
	}
	info, err := m.Get(c.r.Context(), c.params["s"])
	if err != nil {
		return err
	}
	return c.respond(http.StatusOK, info)
}

// putSink passes the spec to the manager unchanged. It only checks that the spec is one JSON object
// without duplicate keys. Columns keep their order.
func (c *call) putSink() error {
	if _, err := c.query(); err != nil {
		return err
	}
	m, err := c.sinks()
	if err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	spec := f.raw
	if spec == nil {
		spec = []byte("{}")
	}
	info, created, err := m.Put(auth.WithUser(c.r.Context(), c.user), c.params["s"], spec)
	if err != nil {
		return err
	}
	return c.respond(createdStatus(created), info)
}

func (c *call) deleteSink() error {
	m, err := c.sinks()
	if err != nil {
		return err
	}
	return c.deleted(func() error { return m.Delete(c.r.Context(), c.params["s"]) })
}

func (c *call) pauseSink() error {
	m, err := c.sinks()
	if err != nil {
		return err
	}
	if err := c.plain(); err != nil {
		return err
	}
	if err := m.Pause(c.r.Context(), c.params["s"]); err != nil {
		return err
	}
	return c.respond(http.StatusOK, pausedAnswer{true})
}

// resumeSink starts a sink again. The body is optional: {"from": "target"}, {"from": "queue"} or
// {"accept_loss": true} choose a way for a sink whose queue and target contradict each other.
func (c *call) resumeSink() error {
	if _, err := c.query(); err != nil {
		return err
	}
	m, err := c.sinks()
	if err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	way := readWay(f, &c.api.limits)
	if err := f.done(); err != nil {
		return err
	}
	if err := m.Resume(c.r.Context(), c.params["s"], way); err != nil {
		return err
	}
	return c.respond(http.StatusOK, pausedAnswer{false})
}

// readWay reads the choice of a way for a sink that cannot go on.
func readWay(f *fields, _ *Limits) string {
	way := f.choice("from", "target", "queue")
	if f.flag("accept_loss", false) {
		if way != "" {
			f.fail("accept_loss", "from and accept_loss exclude each other")
		}
		way = "accept-loss"
	}
	return way
}
