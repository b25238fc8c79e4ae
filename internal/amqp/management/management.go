// Package management serves the part of RabbitMQ's management API that client libraries use in
// their recovery and set-up.
package management

import (
	"encoding/json"
	"net/http"
	"net/netip"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/session"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/lobby"
	"github.com/surgetank/surgetank/internal/policy"
)

// Connections is the server's list of open connections.
type Connections interface {
	// Connections lists the open connections by name.
	Connections() []session.ConnectionInfo
	// CloseConnection closes the connection with this name, with reply code 320. It returns false
	// if there is none.
	CloseConnection(name, reason string) bool
}

// management answers the requests of the management API.
type management struct {
	conns    Connections
	auth     *auth.Store
	policies *policy.Broker
	// httpPeer returns a request's peer address. Nil: the address of the HTTP connection's peer.
	httpPeer func(*http.Request) netip.Addr
}

// New serves the part of RabbitMQ's management API that client libraries use in their recovery and
// set-up:
//
//	GET    /api/connections          open connections (administrator or monitoring tag)
//	DELETE /api/connections/{name}   close one, with the reason of the X-Reason header (administrator)
//	GET    /api/vhosts[/{name}]      virtual hosts (administrator or monitoring tag)
//	PUT    /api/vhosts/{name}        make one (administrator)
//	DELETE /api/vhosts/{name}        delete one with all that is in it (administrator)
//	       /api/policies, /api/topic-permissions, /api/vhost-limits, /api/user-limits: see management_access.go
//
// Each request needs HTTP Basic credentials. This API exists for programs that expect RabbitMQ.
// Surgetank's own API is package httpapi.
func New(conns Connections, store *auth.Store, policies *policy.Broker, peer func(*http.Request) netip.Addr) http.Handler {
	s := &management{conns: conns, auth: store, policies: policies, httpPeer: peer}
	mux := http.NewServeMux()
	handle := func(pattern string, admin bool, f func(http.ResponseWriter, *http.Request, *auth.User)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if user := s.manager(w, r, admin); user != nil {
				r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
				f(w, r, user)
			}
		})
	}
	handle("GET /api/connections", false, s.listConnections)
	handle("GET /api/connections/{$}", false, s.listConnections)
	handle("DELETE /api/connections/{name...}", true, s.closeConnection)
	handle("GET /api/vhosts", false, s.listVhosts)
	handle("GET /api/vhosts/{$}", false, s.listVhosts)
	handle("GET /api/vhosts/{name}", false, s.getVhost)
	handle("PUT /api/vhosts/{name...}", true, s.putVhost)
	handle("DELETE /api/vhosts/{name...}", true, s.deleteVhost)
	s.manageAccess(handle)
	return http.NewCrossOriginProtection().Handler(mux)
}

// manager authenticates a request. It returns nil if it has already answered with an error.
func (s *management) manager(w http.ResponseWriter, r *http.Request, admin bool) *auth.User {
	name, password, ok := r.BasicAuth()
	if !ok {
		w.Header().Set("WWW-Authenticate", `Basic realm="Surgetank"`)
		answer(w, http.StatusUnauthorized, map[string]string{"error": "not_authorised", "reason": "Login failed"})
		return nil
	}
	var peer netip.Addr
	if s.httpPeer != nil {
		peer = s.httpPeer(r)
	} else if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		peer = ap.Addr()
	}
	guest := lobby.Of(r.Context())
	guest.Hold()
	user, err := s.auth.Authenticate(r.Context(), name, password, peer)
	if err != nil {
		guest.Wait()
	} else {
		if admin {
			err = s.auth.AuthorizeAdmin(user)
		} else {
			err = s.auth.AuthorizeMonitor(user)
		}
	}
	if err != nil {
		answer(w, http.StatusUnauthorized, map[string]string{"error": "not_authorised", "reason": err.Error()})
		return nil
	}
	return user
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a failed write means that the client has gone
}

func answerError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch surgetank.CodeOf(err) {
	case surgetank.CodeNotFound:
		status = http.StatusNotFound
	case surgetank.CodeInvalid, surgetank.CodeExists:
		status = http.StatusBadRequest
	case surgetank.CodeBusy, surgetank.CodeClosed, surgetank.CodeFull, surgetank.CodeUnavailable, surgetank.CodeUncertain:
		status = http.StatusServiceUnavailable
	}
	answer(w, status, map[string]string{"error": string(surgetank.CodeOf(err)), "reason": err.Error()})
}

func (s *management) listConnections(w http.ResponseWriter, _ *http.Request, _ *auth.User) {
	answer(w, http.StatusOK, s.conns.Connections())
}

func (s *management) closeConnection(w http.ResponseWriter, r *http.Request, _ *auth.User) {
	if !s.conns.CloseConnection(r.PathValue("name"), r.Header.Get("X-Reason")) {
		answer(w, http.StatusNotFound, map[string]string{"error": "Object Not Found", "reason": "Not Found"})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *management) listVhosts(w http.ResponseWriter, _ *http.Request, _ *auth.User) {
	answer(w, http.StatusOK, s.auth.Vhosts())
}

func (s *management) getVhost(w http.ResponseWriter, r *http.Request, _ *auth.User) {
	v, err := s.auth.GetVhost(r.PathValue("name"))
	if err != nil {
		answerError(w, err)
		return
	}
	answer(w, http.StatusOK, v)
}

// putVhost creates a virtual host. Its creator gets all rights in it, as in RabbitMQ.
func (s *management) putVhost(w http.ResponseWriter, r *http.Request, u *auth.User) {
	name := r.PathValue("name")
	var body struct {
		Description string `json:"description"`
	}
	if r.ContentLength != 0 {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			answer(w, http.StatusBadRequest, map[string]string{"error": "bad_request", "reason": "the body is not a JSON object"})
			return
		}
	}
	created, err := s.auth.PutVhost(r.Context(), name, body.Description)
	if err == nil && created {
		err = s.auth.PutPermission(r.Context(), u.Name, name, auth.AllPermissions)
	}
	if err != nil {
		answerError(w, err)
		return
	}
	if created {
		w.WriteHeader(http.StatusCreated)
	} else {
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *management) deleteVhost(w http.ResponseWriter, r *http.Request, _ *auth.User) {
	if err := s.auth.DeleteVhost(r.Context(), r.PathValue("name")); err != nil {
		answerError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
