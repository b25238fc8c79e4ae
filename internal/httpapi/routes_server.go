package httpapi

import (
	"net/http"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/policy"
)

const examplePolicy = `{"vhost":"/","name":"retries","pattern":"^orders[.]","apply_to":"queues","priority":10,` +
	`"settings":{"retry":{"max_attempts":5},"message-ttl":60000}}`

// healthRoutes returns the routes about the server.
func healthRoutes() []route {
	return []route{
		{
			method: "GET", pattern: "/healthz", access: public, handle: (*call).healthz,
			tag: "health", summary: "Liveness",
			replies: ok("The process answers.", healthAnswer{}, `{"status":"ok"}`),
		},
		{
			method: "GET", pattern: "/readyz", access: public, handle: (*call).readyz,
			codes: []surgetank.Code{surgetank.CodeInvalid, surgetank.CodeClosed, surgetank.CodeUnavailable},
			tag:   "health", summary: "Readiness",
			about: "503 while the server cannot serve. If its log has failed and is being opened again, the " +
				"code is unavailable and the detail names the broker's state. While the disk is nearly full, the server accepts acks " +
				"and refuses messages. The answer then is 200 with publish and reason, or 503 with " +
				"`for=publish`.",
			params: []param{
				choiceParam("for", "`publish` asks for publishers; without it the answer is for all other clients.", "publish"),
			},
			replies: ok("The server can serve.", readyAnswer{}, `{"status":"ready"}`),
		},
		{
			method: "GET", pattern: "/metrics", access: monitor, handle: (*call).showMetrics,
			tag: "health", summary: "Metrics",
			replies: []reply{{status: http.StatusOK, about: "Prometheus' text format.", of: object{{"type", "string"}}, media: "text/plain"}},
		},
		{
			method: "GET", pattern: "/v1/openapi.json", access: loggedIn, handle: (*call).showOpenAPI,
			tag: "health", summary: "This document",
			replies: ok("This document.", object{{"type", "object"}}, ""),
		},
	}
}

// sinkRoutes returns the routes of sinks.
func sinkRoutes() []route {
	return []route{
		{
			method: "GET", pattern: "/v1/sinks", access: admin, handle: (*call).listSinks,
			codes: []surgetank.Code{surgetank.CodeNotFound},
			tag:   "sinks", summary: "List sinks",
			about:   "404 if the server runs no sinks.",
			replies: ok("Sinks by name.", sinksAnswer{}, `{"sinks":[]}`),
		},
		{
			method: "GET", pattern: "/v1/sinks/{s}", access: admin, handle: (*call).getSink,
			tag: "sinks", summary: "A sink's spec and state",
			replies: ok("The sink.", ref("Sink"), `{"name":"orders-to-db"}`),
		},
		{
			method: "PUT", pattern: "/v1/sinks/{s}", access: admin, handle: (*call).putSink,
			tag: "sinks", summary: "Create or replace a sink",
			body:    jsonOf(ref("Sink"), `{"queue":"orders","sqlite":{"path":"/var/lib/orders.db","table":"orders","columns":{"id":{"from":"$.id","type":"INTEGER"},"body":"$"},"create_table":true}}`).must(),
			replies: put("The sink existed, and has this spec now.", ref("Sink"), `{"name":"orders-to-db"}`),
		},
		{
			method: "DELETE", pattern: "/v1/sinks/{s}", access: admin, handle: (*call).deleteSink,
			tag: "sinks", summary: "Delete a sink; the target keeps its rows",
			replies: ok("It is deleted.", deletedAnswer{}, `{"deleted":true}`),
		},
		{
			method: "POST", pattern: "/v1/sinks/{s}/pause", access: admin, handle: (*call).pauseSink,
			tag: "sinks", summary: "Pause a sink",
			replies: ok("Done.", pausedAnswer{}, `{"paused":true}`),
		},
		{
			method: "POST", pattern: "/v1/sinks/{s}/resume", access: admin, handle: (*call).resumeSink,
			tag: "sinks", summary: "Resume a sink",
			about: "A sink in the state refused compares its queue and its target again. The body chooses " +
				"another way to go on; the sink's refusal lists these choices and their effects.",
			body:    jsonBody(`{"from":"target"}`, readWay, nil),
			replies: ok("Done.", pausedAnswer{}, `{"paused":false}`),
		},
	}
}

// policyRoutes returns the routes of policies and of metadata, which are values that clients store.
func policyRoutes() []route {
	return []route{
		{
			method: "GET", pattern: "/v1/policies", access: monitor, handle: (*call).listPolicies,
			codes: []surgetank.Code{surgetank.CodeNotFound},
			tag:   "policies", summary: "List policies",
			about: "Sorted by virtual host, and then by precedence.",
			params: []param{
				textParam("vhost", "In this virtual host."),
			},
			replies: ok("Policies.", policiesAnswer{}, `{"policies":[`+examplePolicy+`]}`),
		},
		{
			method: "GET", pattern: "/v1/vhosts/{v}/policies/{p}", access: monitor, handle: (*call).getPolicy,
			tag: "policies", summary: "A policy",
			replies: ok("The policy.", policy.Policy{}, examplePolicy),
		},
		{
			method: "PUT", pattern: "/v1/vhosts/{v}/policies/{p}", access: admin, handle: (*call).putPolicy,
			tag: "policies", summary: "Create or replace a policy",
			about: "Of the policies that match a name, only the one with the highest priority applies. If the " +
				"policy and a queue's declaration both set a limit, the lower one applies. For all other " +
				"settings the declaration wins. When the answer comes, the change applies to every queue.",
			body: jsonBody(`{"pattern":"^orders[.]","apply_to":"queues","priority":10,"settings":{"retry":{"max_attempts":5},"message-ttl":60000}}`, readPolicy, docs{
				"pattern":  "RE2; without anchors it matches anywhere in a name. It may not be empty.",
				"apply_to": "A missing one means all.",
			}),
			replies: put("It existed and was replaced.", policy.Policy{}, examplePolicy),
		},
		{
			method: "DELETE", pattern: "/v1/vhosts/{v}/policies/{p}", access: admin, handle: (*call).deletePolicy,
			tag: "policies", summary: "Remove a policy",
			about:   "The declared settings of its queues apply again.",
			replies: ok("It is deleted.", deletedAnswer{}, `{"deleted":true}`),
		},
		{
			method: "GET", pattern: "/v1/meta/{n}", access: admin, handle: (*call).getMeta,
			tag: "meta", summary: "Values that clients store in the broker",
			about:   "These namespaces belong to clients. The server's own values are separate.",
			replies: ok("Values by name, in base64.", metaAnswer{}, `{"values":{"cursor":"NDI="}}`),
		},
		{
			method: "PUT", pattern: "/v1/meta/{n}/{k}", access: admin, handle: (*call).putMeta,
			tag: "meta", summary: "Store a value, durably",
			body:    body{rawContent("At most 1 MiB.", "42")},
			replies: ok("Stored.", storedAnswer{}, `{"stored":true}`),
		},
		{
			method: "DELETE", pattern: "/v1/meta/{n}/{k}", access: admin, handle: (*call).deleteMeta,
			tag: "meta", summary: "Remove a value",
			replies: ok("It is deleted.", deletedAnswer{}, `{"deleted":true}`),
		},
	}
}
