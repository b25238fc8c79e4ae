package httpapi

import (
	"net/http"

	"github.com/surgetank/surgetank"
)

// healthz answers that the process is alive. It checks nothing else.
func (c *call) healthz() error {
	return c.respond(http.StatusOK, healthAnswer{"ok"})
}

// readyz answers whether the server can serve. The reason is only in the log, for the operator.
func (c *call) readyz() error {
	if c.api.base.Err() != nil {
		return surgetank.Errorf(surgetank.CodeClosed, "the server is stopping")
	}
	if ready := c.api.opts.Ready; ready != nil {
		if err := ready(); err != nil {
			c.api.opts.Logger.Warn("not ready", "error", err)
			code, state := surgetank.CodeClosed, ""
			if c.api.opts.State != nil {
				state = " (broker: " + c.api.opts.State() + ")"
			}
			if surgetank.CodeOf(err) == surgetank.CodeUnavailable {
				code = surgetank.CodeUnavailable
			}
			return withStatus(http.StatusServiceUnavailable, surgetank.Errorf(code, "the server is not ready%s; its log says why", state))
		}
	}
	q := c.r.URL.Query() // other parameters are accepted: probes add their own
	if use := q.Get("for"); use != "" && use != "publish" {
		return surgetank.FieldErrorf("for", "for is publish, or left out, not %.40q", use)
	}
	answer := readyAnswer{Status: "ready"}
	if refusing := c.api.opts.Refusing; refusing != nil {
		// Consumers must still reach the server, because acks make room. So only probes for
		// publishers fail.
		if why := refusing(); why != "" && q.Get("for") == "publish" {
			return withStatus(http.StatusServiceUnavailable, surgetank.Errorf(surgetank.CodeFull, "the server is not ready for messages: %s", why))
		} else if why != "" {
			answer.Publish, answer.Reason = "refused", why
		}
	}
	return c.respond(http.StatusOK, answer)
}

// showOpenAPI returns the document that describes this API.
func (c *call) showOpenAPI() error {
	if _, err := c.query(); err != nil {
		return err
	}
	return c.respondRaw(http.StatusOK, openAPI)
}
