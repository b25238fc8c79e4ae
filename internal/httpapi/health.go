package httpapi

import (
	"net/http"

	"github.com/surgetank/surgetank"
)

// healthz says that the process answers, and nothing about its work.
func (c *call) healthz() error {
	return c.respond(http.StatusOK, map[string]string{"status": "ok"})
}

// readyz says whether the server can serve; why not is for those who are logged in to see in the log.
func (c *call) readyz() error {
	if c.api.base.Err() != nil {
		return surgetank.Errorf(surgetank.CodeClosed, "the server is stopping")
	}
	if ready := c.api.opts.Ready; ready != nil {
		if err := ready(); err != nil {
			c.api.opts.Logger.Warn("not ready", "error", err)
			return withStatus(http.StatusServiceUnavailable, surgetank.Errorf(surgetank.CodeClosed, "the server is not ready; its log says why"))
		}
	}
	return c.respond(http.StatusOK, map[string]string{"status": "ready"})
}

// showOpenAPI gives the document that describes this API.
func (c *call) showOpenAPI() error {
	if _, err := c.query(); err != nil {
		return err
	}
	return c.respondRaw(http.StatusOK, openAPI)
}
