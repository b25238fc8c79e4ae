package amqp

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/auth"
)

// The test uses paths, words and statuses of RabbitMQ's management API as its command-line tool and
// client libraries do.
func TestManagementOfPoliciesAndLimits(t *testing.T) {
	bn := start(t, Limits{})
	tags := []string{auth.TagMonitoring}
	secret := auth.Secret("mon")
	bn.keepGuest()
	if _, err := bn.auth.PutUser(context.Background(), "mon", auth.UserSpec{Password: &secret, Tags: &tags}); err != nil {
		t.Fatal(err)
	}
	h := bn.server.Management()
	do := func(user, method, path, body string) (int, string) {
		t.Helper()
		r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
		r.RemoteAddr = "127.0.0.1:4000"
		if user != "" {
			r.SetBasicAuth(user, user)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		text, _ := io.ReadAll(w.Result().Body)
		return w.Code, strings.TrimSpace(string(text))
	}
	c := bn.dial()
	c.queue("orders", nil)
	for _, tt := range []struct {
		user, method, path, body string
		status                   int
		want                     string
	}{
		{"guest", "PUT", "/api/policies/%2F/p", `{"pattern":"^orders","definition":{"message-ttl":60000},"priority":7,"apply-to":"queues"}`, 201, ""},
		{"guest", "PUT", "/api/policies/%2F/p", `{"pattern":"^orders","definition":{"message-ttl":60000,"ha-mode":"all"},"priority":7,"apply-to":"queues"}`, 204, ""},
		{"mon", "GET", "/api/policies/%2F/p", "", 200, `{"vhost":"/","name":"p","pattern":"^orders","apply-to":"queues","definition":{"ha-mode":"all","message-ttl":60000},"priority":7}`},
		{"mon", "GET", "/api/policies", "", 200, `"name":"p"`},
		{"mon", "GET", "/api/policies/%2F", "", 200, `"name":"p"`},
		{"mon", "PUT", "/api/policies/%2F/p", `{"pattern":"a","definition":{"message-ttl":1}}`, 401, ""},
		{"", "GET", "/api/policies", "", 401, ""},
		{"guest", "PUT", "/api/policies/%2F/bad", `{"pattern":"(","definition":{"message-ttl":1}}`, 400, "pattern"},
		{"guest", "PUT", "/api/policies/%2F/bad", `nonsense`, 400, ""},
		{"guest", "PUT", "/api/policies/nowhere/p", `{"pattern":"a","definition":{"message-ttl":1}}`, 404, ""},
		{"guest", "PUT", "/api/topic-permissions/%2F/mon", `{"exchange":"amq.topic","write":"a","read":"b"}`, 201, ""},
		{"mon", "GET", "/api/topic-permissions", "", 200, `[{"user":"mon","vhost":"/","exchange":"amq.topic","write":"a","read":"b"}]`},
		{"guest", "DELETE", "/api/topic-permissions/%2F/mon", "", 204, ""},
		{"guest", "PUT", "/api/vhost-limits/%2F/max-queues", `{"value":5}`, 204, ""},
		{"guest", "PUT", "/api/vhost-limits/%2F/max-connections", `{"value":50}`, 204, ""},
		{"guest", "PUT", "/api/vhost-limits/%2F/max-nothing", `{"value":5}`, 400, "max-nothing"},
		{"guest", "PUT", "/api/vhost-limits/%2F/max-queues", `{}`, 400, ""},
		{"mon", "GET", "/api/vhost-limits", "", 200, `[{"value":{"max-connections":50,"max-queues":5},"vhost":"/"}]`},
		{"guest", "DELETE", "/api/vhost-limits/%2F/max-queues", "", 204, ""},
		{"guest", "PUT", "/api/vhost-limits/%2F/max-connections", `{"value":-1}`, 204, ""},
		{"mon", "GET", "/api/vhost-limits", "", 200, `[]`},
		{"guest", "PUT", "/api/user-limits/mon/max-channels", `{"value":9}`, 204, ""},
		{"mon", "GET", "/api/user-limits", "", 200, `[{"user":"mon","value":{"max-channels":9}}]`},
		{"guest", "DELETE", "/api/user-limits/mon/max-channels", "", 204, ""},
		{"guest", "PUT", "/api/user-limits/nobody/max-channels", `{"value":9}`, 404, ""},
	} {
		status, body := do(tt.user, tt.method, tt.path, tt.body)
		if status != tt.status || !strings.Contains(body, tt.want) {
			t.Errorf("%s %s %s: %d %s, want %d %s", tt.user, tt.method, tt.path, status, body, tt.status, tt.want)
		}
	}
	info := amqptest.Must[surgetank.QueueInfo](t)(bn.server.broker.Queue(context.Background(), "orders"))
	if info.Policy != "p" || info.Config.TTL.Milliseconds() != 60000 {
		t.Errorf("%+v", info)
	}
	if status, body := do("guest", "DELETE", "/api/policies/%2F/p", ""); status != http.StatusNoContent {
		t.Error(status, body)
	}
}
