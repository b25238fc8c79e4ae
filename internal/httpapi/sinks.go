package httpapi

import (
	"encoding/json"
	"net/http"

	"github.com/surgetank/surgetank"
)

// sinks gives the manager of sinks, or says that there is none.
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
	return c.respond(http.StatusOK, map[string]any{"sinks": list})
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

// putSink hands the spec to the manager as it stands; here it is only checked to be one JSON object without
// duplicate keys. Columns keep the order in which they are written.
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
	info, created, err := m.Put(c.r.Context(), c.params["s"], spec)
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

func (c *call) pauseSink() error  { return c.setSinkPaused(true) }
func (c *call) resumeSink() error { return c.setSinkPaused(false) }

func (c *call) setSinkPaused(paused bool) error {
	m, err := c.sinks()
	if err != nil {
		return err
	}
	if err := c.plain(); err != nil {
		return err
	}
	set := m.Resume
	if paused {
		set = m.Pause
	}
	if err := set(c.r.Context(), c.params["s"]); err != nil {
		return err
	}
	return c.respond(http.StatusOK, map[string]bool{"paused": paused})
}
