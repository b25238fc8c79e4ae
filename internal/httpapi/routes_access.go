package httpapi

import (
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
)

const (
	exampleUser       = `{"name":"ann","tags":["monitoring"],"loopback_only":false,"has_password":true}`
	exampleVhost      = `{"name":"/","description":"the default virtual host","created":"2026-01-02T03:04:05Z"}`
	examplePermission = `{"user":"ann","vhost":"/","configure":"","write":"orders.*","read":".*"}`
	exampleTopic      = `{"user":"ann","vhost":"/","exchange":"amq.topic","write":"orders[.].*","read":".*"}`
)

// accessRoutes returns the routes of users, virtual hosts and rights.
func accessRoutes() []route {
	return []route{
		{
			method: "GET", pattern: "/v1/whoami", access: loggedIn, handle: (*call).whoami,
			tag: "access", summary: "Who the caller is",
			replies: ok("The caller.", whoamiAnswer{}, `{"user":"ann","local":false,"version":"1.0.0","administrator":false,"monitoring":false}`),
		},
		{
			method: "GET", pattern: "/v1/users", access: admin, handle: (*call).listUsers,
			tag: "access", summary: "List users",
			replies: ok("Users by name.", usersAnswer{}, `{"users":[`+exampleUser+`]}`),
		},
		{
			method: "GET", pattern: "/v1/users/{u}", access: admin, handle: (*call).getUser,
			tag: "access", summary: "A user",
			replies: ok("The user.", auth.UserInfo{}, exampleUser),
		},
		{
			method: "PUT", pattern: "/v1/users/{u}", access: admin, handle: (*call).putUser,
			tag: "access", summary: "Create or change a user",
			about: "Missing members of an existing user stay unchanged.",
			body: jsonBody(`{"password":"correct horse","tags":["monitoring"]}`, readUser, docs{
				"tags":          "The tags administrator, monitoring and impersonator have a meaning; others do not.",
				"loopback_only": "The user can log in only from the server's own machine.",
			}),
			replies: put("It existed and was changed.", auth.UserInfo{}, exampleUser),
		},
		{
			method: "DELETE", pattern: "/v1/users/{u}", access: admin, handle: (*call).deleteUser,
			tag: "access", summary: "Delete a user and its permissions",
			replies: ok("It is deleted.", deletedAnswer{}, `{"deleted":true}`),
		},
		{
			method: "GET", pattern: "/v1/vhosts", access: loggedIn, handle: (*call).listVhosts,
			tag: "access", summary: "List the virtual hosts the caller may enter",
			replies: ok("Virtual hosts by name.", vhostsAnswer{}, `{"vhosts":[`+exampleVhost+`]}`),
		},
		{
			method: "GET", pattern: "/v1/vhosts/{v}", access: inVhost, handle: (*call).getVhost,
			tag: "access", summary: "A virtual host",
			needs:   "Needs any permission in it.",
			replies: ok("The virtual host.", auth.VhostInfo{}, exampleVhost),
		},
		{
			method: "PUT", pattern: "/v1/vhosts/{v}", access: admin, handle: (*call).putVhost,
			codes: []surgetank.Code{surgetank.CodeExists},
			tag:   "access", summary: "Create or change a virtual host",
			about:   "The creator of a virtual host gets every right in it.",
			body:    jsonBody(`{"description":"staging"}`, readVhost, nil),
			replies: put("It existed and was changed.", auth.VhostInfo{}, exampleVhost),
		},
		{
			method: "DELETE", pattern: "/v1/vhosts/{v}", access: admin, handle: (*call).deleteVhost,
			codes: []surgetank.Code{surgetank.CodeExists},
			tag:   "access", summary: "Delete a virtual host with its queues and permissions",
			params: []param{
				flagParam("if_empty", "Only if its queues have no messages when the server checks them, just before."),
			},
			replies: ok("It is deleted.", deletedAnswer{}, `{"deleted":true}`),
		},
		{
			method: "GET", pattern: "/v1/permissions", access: admin, handle: (*call).listPermissions,
			tag: "access", summary: "List permissions",
			params: []param{
				textParam("user", "Of this user."),
				textParam("vhost", "In this virtual host."),
			},
			replies: ok("Permissions by user and virtual host.", permissionsAnswer{}, `{"permissions":[`+examplePermission+`]}`),
		},
		{
			method: "GET", pattern: "/v1/vhosts/{v}/permissions/{u}", access: admin, handle: (*call).getPermission,
			tag: "access", summary: "A user's permission in a virtual host",
			replies: ok("The permission.", auth.PermissionInfo{}, examplePermission),
		},
		{
			method: "PUT", pattern: "/v1/vhosts/{v}/permissions/{u}", access: admin, handle: (*call).putPermission,
			tag: "access", summary: "Set a user's permission in a virtual host",
			about: "Each is a regular expression (RE2) that must match the whole name; an empty one matches nothing.",
			body: jsonBody(`{"configure":"","write":"orders.*","read":".*"}`, readPermission, docs{
				"configure": "The queues and exchanges that the user may declare, change and delete.",
				"write":     "The queues and exchanges that the user may publish to.",
				"read":      "The queues and exchanges that the user may consume from.",
			}),
			replies: ok("Done.", auth.PermissionInfo{}, examplePermission),
		},
		{
			method: "DELETE", pattern: "/v1/vhosts/{v}/permissions/{u}", access: admin, handle: (*call).deletePermission,
			tag: "access", summary: "Remove a user's permission in a virtual host",
			replies: ok("It is deleted.", deletedAnswer{}, `{"deleted":true}`),
		},
		{
			method: "GET", pattern: "/v1/topic-permissions", access: admin, handle: (*call).listTopicPermissions,
			tag: "access", summary: "List topic permissions",
			params: []param{
				textParam("user", "Of this user."),
				textParam("vhost", "In this virtual host."),
			},
			replies: ok("Topic permissions by user, virtual host and exchange.", topicsAnswer{}, `{"topic_permissions":[`+exampleTopic+`]}`),
		},
		{
			method: "PUT", pattern: "/v1/vhosts/{v}/topic-permissions/{u}/{x}", access: admin, handle: (*call).putTopicPermission,
			tag: "access", summary: "Set the keys with which a user may use a topic exchange",
			about: "Each is a regular expression (RE2) that must match the whole routing key (write) or " +
				"binding key (read). An empty one matches nothing. {username} and {vhost} are replaced by " +
				"these names. An exchange without a topic permission has only its own permission.",
			body:    jsonBody(`{"write":"orders[.].*","read":".*"}`, readTopicPermission, nil),
			replies: ok("Done.", auth.TopicPermissionInfo{}, exampleTopic),
		},
		{
			method: "DELETE", pattern: "/v1/vhosts/{v}/topic-permissions/{u}/{x}", access: admin, handle: (*call).deleteTopicPermission,
			tag: "access", summary: "Remove a user's topic permission, so that it may use every key",
			replies: ok("It is deleted.", deletedAnswer{}, `{"deleted":true}`),
		},
		{
			method: "PUT", pattern: "/v1/vhosts/{v}/limits", access: admin, handle: (*call).putVhostLimits,
			tag: "access", summary: "Set the limits of a virtual host",
			about: "Replaces all limits: a missing member means no limit. Existing objects above a new limit " +
				"stay. A subscription over HTTP counts as a connection.",
			body:    jsonBody(`{"max_queues":100}`, readVhostLimits, docsOf[auth.VhostLimits]()),
			replies: ok("The virtual host.", auth.VhostInfo{}, `{"name":"/","description":"the default virtual host","created":"2026-01-02T03:04:05Z","limits":{"max_queues":100}}`),
		},
		{
			method: "PUT", pattern: "/v1/users/{u}/limits", access: admin, handle: (*call).putUserLimits,
			tag: "access", summary: "Set the limits of a user",
			about:   "Replaces all limits: a missing member means no limit. Existing objects above a new limit stay.",
			body:    jsonBody(`{"max_connections":20}`, readUserLimits, docsOf[auth.UserLimits]()),
			replies: ok("The user.", auth.UserInfo{}, `{"name":"ann","tags":["monitoring"],"loopback_only":false,"has_password":true,"limits":{"max_connections":20}}`),
		},
	}
}
