package httpapi

import (
	"net/http"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/fullname"
)

// whoami returns the caller's name and rights.
func (c *call) whoami() error {
	if _, err := c.query(); err != nil {
		return err
	}
	store := c.api.opts.Auth
	return c.respond(http.StatusOK, whoamiAnswer{
		User: c.user.Name, Local: c.user.IsLocal(), Version: c.api.opts.Version,
		Administrator: store.AuthorizeAdmin(c.user) == nil, Monitoring: store.AuthorizeMonitor(c.user) == nil,
	})
}

func (c *call) listUsers() error {
	if _, err := c.query(); err != nil {
		return err
	}
	return c.respond(http.StatusOK, usersAnswer{c.api.opts.Auth.Users()})
}

func (c *call) getUser() error {
	if _, err := c.query(); err != nil {
		return err
	}
	u, err := c.api.opts.Auth.GetUser(c.params["u"])
	if err != nil {
		return err
	}
	return c.respond(http.StatusOK, u)
}

// putUser creates a user, or changes the fields of a user that the request contains.
func (c *call) putUser() error {
	if _, err := c.query(); err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	spec := readUser(f, &c.api.limits)
	if err := f.done(); err != nil {
		return err
	}
	created, err := c.api.opts.Auth.PutUser(c.r.Context(), c.params["u"], spec)
	if err != nil {
		return err
	}
	u, err := c.api.opts.Auth.GetUser(c.params["u"])
	if err != nil {
		return err
	}
	return c.respond(createdStatus(created), u)
}

func readUser(f *fields, _ *Limits) (spec auth.UserSpec) {
	if p := f.secret("password", auth.MaxPasswordLen); f.has("password") {
		spec.Password = &p
	}
	if tags := f.texts("tags", auth.MaxTags); f.has("tags") {
		spec.Tags = &tags
	}
	spec.LoopbackOnly = f.optionalFlag("loopback_only")
	return spec
}

func createdStatus(created bool) int {
	if created {
		return http.StatusCreated
	}
	return http.StatusOK
}

func (c *call) deleteUser() error {
	return c.deleted(func() error { return c.api.opts.Auth.DeleteUser(c.r.Context(), c.params["u"]) })
}

// deleted answers a deletion.
func (c *call) deleted(do func() error) error {
	if err := c.plain(); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return c.respond(http.StatusOK, deletedAnswer{true})
}

// listVhosts shows the virtual hosts that the caller may enter. Administrators and monitors see
// all.
func (c *call) listVhosts() error {
	if _, err := c.query(); err != nil {
		return err
	}
	store := c.api.opts.Auth
	all := store.AuthorizeMonitor(c.user) == nil
	list := []auth.VhostInfo{}
	for _, v := range store.Vhosts() {
		if all || store.AuthorizeVhost(c.user, v.Name) == nil {
			list = append(list, v)
		}
	}
	return c.respond(http.StatusOK, vhostsAnswer{list})
}

func (c *call) getVhost() error {
	if _, err := c.query(); err != nil {
		return err
	}
	v, err := c.api.opts.Auth.GetVhost(c.params["v"])
	if err != nil {
		return err
	}
	return c.respond(http.StatusOK, v)
}

// putVhost creates a virtual host or changes its description. The creator gets all permissions in
// it.
func (c *call) putVhost() error {
	if _, err := c.query(); err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	description := readVhost(f, &c.api.limits)
	if err := f.done(); err != nil {
		return err
	}
	store, name := c.api.opts.Auth, c.params["v"]
	created, err := store.PutVhost(c.r.Context(), name, description)
	if err != nil {
		return err
	}
	if created && !c.user.IsLocal() {
		if err := store.PutPermission(c.r.Context(), c.user.Name, name, auth.AllPermissions); err != nil {
			return err
		}
	}
	v, err := store.GetVhost(name)
	if err != nil {
		return err
	}
	return c.respond(createdStatus(created), v)
}

func readVhost(f *fields, _ *Limits) string { return f.text("description", auth.MaxDescriptionLen) }

// deleteVhost removes a virtual host with its queues. With if_empty it removes the virtual host
// only if the queues had no messages when checked.
func (c *call) deleteVhost() error {
	q, err := c.query()
	if err != nil {
		return err
	}
	if err := c.noBody(); err != nil {
		return err
	}
	if q.flag("if_empty") {
		all, err := c.api.opts.Broker.Queues(c.r.Context())
		if err != nil {
			return err
		}
		for _, one := range all {
			vhost, name := fullname.Split(one.Name)
			if n := one.Ready + one.Blocked + one.Delayed + one.Leased + one.Damaged; vhost == c.params["v"] && n > 0 {
				return surgetank.Errorf(surgetank.CodeExists, "virtual host %.60q is not empty: its queue %.60q holds %d messages", vhost, name, n)
			}
		}
	}
	if err := c.api.opts.Auth.DeleteVhost(c.r.Context(), c.params["v"]); err != nil {
		return err
	}
	return c.respond(http.StatusOK, deletedAnswer{true})
}

func (c *call) listPermissions() error {
	q, err := c.query()
	if err != nil {
		return err
	}
	return c.respond(http.StatusOK, permissionsAnswer{c.api.opts.Auth.Permissions(q.text("user"), q.text("vhost"))})
}

func (c *call) getPermission() error {
	if _, err := c.query(); err != nil {
		return err
	}
	return c.showPermission(http.StatusOK)
}

func (c *call) showPermission(status int) error {
	list := c.api.opts.Auth.Permissions(c.params["u"], c.params["v"])
	if len(list) == 0 {
		return surgetank.Errorf(surgetank.CodeNotFound, "user %.60q has no permission in virtual host %.60q", c.params["u"], c.params["v"])
	}
	return c.respond(status, list[0])
}

func (c *call) putPermission() error {
	if _, err := c.query(); err != nil {
		return err
	}
	f, err := c.object()
	if err != nil {
		return err
	}
	p := readPermission(f, &c.api.limits)
	if err := f.done(); err != nil {
		return err
	}
	if err := c.api.opts.Auth.PutPermission(c.r.Context(), c.params["u"], c.params["v"], p); err != nil {
		return err
	}
	return c.showPermission(http.StatusOK)
}

func readPermission(f *fields, _ *Limits) auth.Permission {
	pattern := func(name string) string {
		f.need(name) // a forgotten pattern must neither revoke nor grant a right
		return f.text(name, auth.MaxPatternLen)
	}
	return auth.Permission{Configure: pattern("configure"), Write: pattern("write"), Read: pattern("read")}
}

func (c *call) deletePermission() error {
	return c.deleted(func() error {
		return c.api.opts.Auth.DeletePermission(c.r.Context(), c.params["u"], c.params["v"])
	})
}

// metaPrefix separates the values that clients store from the namespaces of the doors. Clients may
// not read or write the doors' records (users, topology).
const metaPrefix = "http:"

func (c *call) metaNamespace() (string, error) {
	if err := surgetank.ValidateName("namespace", c.params["n"]); err != nil {
		return "", err
	}
	return metaPrefix + c.params["n"], nil
}

func (c *call) getMeta() error {
	if _, err := c.query(); err != nil {
		return err
	}
	n, err := c.metaNamespace()
	if err != nil {
		return err
	}
	state, err := c.broker().Meta(c.r.Context(), n)
	if err != nil {
		return err
	}
	return c.respond(http.StatusOK, metaAnswer{state.Bytes()}) // []byte becomes base64
}

// putMeta stores the raw body as a value.
func (c *call) putMeta() error {
	if _, err := c.query(); err != nil {
		return err
	}
	body, err := c.readBody(1 << 20)
	if err != nil {
		return err
	}
	defer body.release()
	if body.data == nil {
		body.data = []byte{}
	}
	return c.setMeta(body.data, storedAnswer{true})
}

func (c *call) deleteMeta() error {
	if err := c.plain(); err != nil {
		return err
	}
	return c.setMeta(nil, deletedAnswer{true})
}

func (c *call) setMeta(value []byte, answer any) error {
	n, err := c.metaNamespace()
	if err != nil {
		return err
	}
	if err := surgetank.ValidateName("value", c.params["k"]); err != nil {
		return err
	}
	if err := c.broker().SetMeta(c.r.Context(), n, c.params["k"], value); err != nil {
		return err
	}
	return c.respond(http.StatusOK, answer)
}
