package management

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/policy"
)

// This file serves the part of RabbitMQ's management API about policies, topic permissions and
// limits. It has RabbitMQ's paths and words. It changes the same records as Surgetank's own API.

type manageFunc = func(pattern string, admin bool, f func(http.ResponseWriter, *http.Request, *auth.User))

func (s *management) manageAccess(handle manageFunc) {
	handle("GET /api/policies", false, s.listPolicies)
	handle("GET /api/policies/{rest...}", false, named(s.getPolicy, "vhost", "name"))
	handle("PUT /api/policies/{rest...}", true, named(s.putPolicy, "vhost", "name"))
	handle("DELETE /api/policies/{rest...}", true, named(s.deletePolicy, "vhost", "name"))
	handle("GET /api/topic-permissions", false, s.listTopicPermissions)
	handle("PUT /api/topic-permissions/{rest...}", true, named(s.putTopicPermission, "vhost", "user"))
	handle("DELETE /api/topic-permissions/{rest...}", true, named(s.deleteTopicPermissions, "vhost", "user"))
	handle("GET /api/vhost-limits", false, s.listVhostLimits)
	handle("PUT /api/vhost-limits/{rest...}", true, named(s.putVhostLimit, "vhost", "name"))
	handle("DELETE /api/vhost-limits/{rest...}", true, named(s.putVhostLimit, "vhost", "name"))
	handle("GET /api/user-limits", false, s.listUserLimits)
	handle("PUT /api/user-limits/{rest...}", true, named(s.putUserLimit, "user", "name"))
	handle("DELETE /api/user-limits/{rest...}", true, named(s.putUserLimit, "user", "name"))
}

// named sets the path values names to the segments after /api/SOMETHING/. A pattern of
// http.ServeMux cannot match %2F, the escaped name of the default virtual host. If there is only
// one segment, the second name is empty.
func named(f func(http.ResponseWriter, *http.Request, *auth.User), names ...string) func(http.ResponseWriter, *http.Request, *auth.User) {
	return func(w http.ResponseWriter, r *http.Request, u *auth.User) {
		segments := strings.Split(strings.Trim(r.URL.EscapedPath(), "/"), "/")[2:]
		if len(segments) > len(names) || len(segments) < len(names) && r.Method != http.MethodGet {
			answer(w, http.StatusNotFound, map[string]string{"error": "Object Not Found", "reason": "Not Found"})
			return
		}
		for i, s := range segments {
			v, err := url.PathUnescape(s)
			if err != nil {
				answer(w, http.StatusBadRequest, map[string]string{"error": "bad_request", "reason": "the path is not escaped rightly"})
				return
			}
			r.SetPathValue(names[i], v)
		}
		f(w, r, u)
	}
}

// policyView is a policy in RabbitMQ's words.
type policyView struct {
	Vhost      string         `json:"vhost"`
	Name       string         `json:"name"`
	Pattern    string         `json:"pattern"`
	ApplyTo    policy.Target  `json:"apply-to"`
	Definition map[string]any `json:"definition"`
	Priority   int            `json:"priority"`
}

func viewPolicy(p policy.Policy) policyView {
	return policyView{p.Vhost, p.Name, p.Pattern, p.ApplyTo, p.Settings, p.Priority}
}

func (s *management) listPolicies(w http.ResponseWriter, r *http.Request, _ *auth.User) {
	list := []policyView{}
	for _, p := range s.policies.Policies(r.PathValue("vhost")) {
		list = append(list, viewPolicy(p))
	}
	answer(w, http.StatusOK, list)
}

func (s *management) getPolicy(w http.ResponseWriter, r *http.Request, _ *auth.User) {
	if r.PathValue("name") == "" {
		s.listPolicies(w, r, nil)
		return
	}
	p, err := s.policies.GetPolicy(r.PathValue("vhost"), r.PathValue("name"))
	if err != nil {
		answerError(w, err)
		return
	}
	answer(w, http.StatusOK, viewPolicy(p))
}

// decoded decodes a request's object. It returns false if it has already answered with an error.
func decoded(w http.ResponseWriter, r *http.Request, into any) bool {
	d := json.NewDecoder(r.Body)
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": "bad_request", "reason": "the body is not a JSON object with the expected members: " + err.Error()})
		return false
	}
	return true
}

// done answers a request that changes something.
func done(w http.ResponseWriter, created bool, err error) {
	switch {
	case err != nil:
		answerError(w, err)
	case created:
		w.WriteHeader(http.StatusCreated)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *management) putPolicy(w http.ResponseWriter, r *http.Request, _ *auth.User) {
	var v policyView
	if !decoded(w, r, &v) {
		return
	}
	created, err := s.policies.PutPolicy(r.Context(), policy.Policy{Vhost: r.PathValue("vhost"), Name: r.PathValue("name"), Pattern: v.Pattern,
		ApplyTo: v.ApplyTo, Priority: v.Priority, Settings: v.Definition})
	done(w, created, err)
}

func (s *management) deletePolicy(w http.ResponseWriter, r *http.Request, _ *auth.User) {
	done(w, false, s.policies.DeletePolicy(r.Context(), r.PathValue("vhost"), r.PathValue("name")))
}

func (s *management) listTopicPermissions(w http.ResponseWriter, _ *http.Request, _ *auth.User) {
	answer(w, http.StatusOK, s.auth.TopicPermissions("", ""))
}

func (s *management) putTopicPermission(w http.ResponseWriter, r *http.Request, _ *auth.User) {
	var t auth.TopicPermission
	if decoded(w, r, &t) {
		done(w, true, s.auth.PutTopicPermission(r.Context(), r.PathValue("user"), r.PathValue("vhost"), t))
	}
}

func (s *management) deleteTopicPermissions(w http.ResponseWriter, r *http.Request, _ *auth.User) {
	done(w, false, s.auth.DeleteTopicPermission(r.Context(), r.PathValue("user"), r.PathValue("vhost"), ""))
}

func (s *management) listVhostLimits(w http.ResponseWriter, _ *http.Request, _ *auth.User) {
	list := []map[string]any{}
	for _, v := range s.auth.Vhosts() {
		if m := limitsOf("max-connections", v.Limits.MaxConnections, "max-queues", v.Limits.MaxQueues); len(m) > 0 {
			list = append(list, map[string]any{"vhost": v.Name, "value": m})
		}
	}
	answer(w, http.StatusOK, list)
}

func (s *management) listUserLimits(w http.ResponseWriter, _ *http.Request, _ *auth.User) {
	list := []map[string]any{}
	for _, u := range s.auth.Users() {
		if m := limitsOf("max-connections", u.Limits.MaxConnections, "max-channels", u.Limits.MaxChannels); len(m) > 0 {
			list = append(list, map[string]any{"user": u.Name, "value": m})
		}
	}
	answer(w, http.StatusOK, list)
}

func limitsOf(a string, x *int, b string, y *int) map[string]int {
	m := map[string]int{}
	if x != nil {
		m[a] = *x
	}
	if y != nil {
		m[b] = *y
	}
	return m
}

// limitValue decodes the value of a limit. A deletion and a negative number mean no limit. ok is
// false if limitValue has already answered with an error.
func limitValue(w http.ResponseWriter, r *http.Request) (v *int, ok bool) {
	if r.Method == http.MethodDelete {
		return nil, true
	}
	var body struct {
		Value *int `json:"value"`
	}
	if !decoded(w, r, &body) {
		return nil, false
	}
	if body.Value == nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": "bad_request", "reason": "value is missing: a whole number, -1 for none"})
		return nil, false
	}
	if *body.Value < 0 {
		return nil, true
	}
	return body.Value, true
}

func noLimit(name string) error {
	return surgetank.FieldErrorf("name", "there is no limit %.40q here", name)
}

func (s *management) putVhostLimit(w http.ResponseWriter, r *http.Request, _ *auth.User) {
	v, ok := limitValue(w, r)
	if !ok {
		return
	}
	info, err := s.auth.GetVhost(r.PathValue("vhost"))
	if err == nil {
		switch name := r.PathValue("name"); name {
		case "max-connections":
			info.Limits.MaxConnections = v
		case "max-queues":
			info.Limits.MaxQueues = v
		default:
			err = noLimit(name)
		}
	}
	if err == nil {
		err = s.auth.PutVhostLimits(r.Context(), info.Name, info.Limits)
	}
	done(w, false, err)
}

func (s *management) putUserLimit(w http.ResponseWriter, r *http.Request, _ *auth.User) {
	v, ok := limitValue(w, r)
	if !ok {
		return
	}
	info, err := s.auth.GetUser(r.PathValue("user"))
	if err == nil {
		switch name := r.PathValue("name"); name {
		case "max-connections":
			info.Limits.MaxConnections = v
		case "max-channels":
			info.Limits.MaxChannels = v
		default:
			err = noLimit(name)
		}
	}
	if err == nil {
		err = s.auth.PutUserLimits(r.Context(), info.Name, info.Limits)
	}
	done(w, false, err)
}
