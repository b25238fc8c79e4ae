package httpapi

import (
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/settings"
)

const exampleQueue = `{"name":"orders","vhost":"/","id":1,"created":"2026-01-02T03:04:05Z","settings":{"group_by":"header:customer","retry":{"max_attempts":8}},` +
	`"ready":2,"blocked":0,"delayed":0,"leased":1,"damaged":0,"bytes":120,"oldest_age":"1.5s","backing_off":0,"groups":2,"consumers":1,"floor":1,` +
	`"counts":{"published":0,"duplicates":0,"refused":0,"delivered":0,"acked":0,"nacked":0,"expired":0,"dead_lettered":0,"dropped":0,"leases_lost":0}}`

const exampleWhy = `{"verdict":"group_in_flight","text":"Group \"ada\" has 1 of 1 in flight (group.max_in_flight); consumer \"billing\" holds 1-41 since 2026-01-02T03:04:05Z.",` +
	`"until":"2026-01-02T03:04:35Z","id":"1-42","group":"ada","leases":[{"id":"1-41","consumer":3,"name":"billing","since":"2026-01-02T03:04:05Z","until":"2026-01-02T03:04:35Z"}],` +
	`"drain":{"backlog":5000,"low":"40s","high":"1m10s","by":"rates","text":"40s to 1m10s: 25/s come and 150/s go."},` +
	`"groups":[{"group":"ada","waiting":3200,"in_flight":1,"rate":4.5,"age":"12m0s"}]}`

// queueRoutes returns the routes of queues in a virtual host.
func queueRoutes() []route {
	return []route{
		{
			method: "GET", pattern: "/queues", access: inVhost, handle: (*call).listQueues,
			tag: "queues", summary: "List queues",
			about: "Shows the queues on which the caller has any permission.",
			params: []param{
				textParam("after", "Start after this name, which is next of the page before."),
				numberParam("max", maxListed, "Queues per page; 10,000 by default."),
				textParam("prefix", "Only names with this beginning."),
				flagParam("all_vhosts", "Queues of every virtual host."),
			},
			replies: ok("Queues by name.", queuesAnswer{}, `{"queues":[`+exampleQueue+`]}`),
		},
		{
			method: "GET", pattern: "/queues/{q}", access: see, handle: (*call).getQueue,
			tag: "queues", summary: "Settings and figures of a queue",
			replies: ok("The queue. Its settings include the defaults.", settings.Queue{}, exampleQueue),
		},
		{
			method: "GET", pattern: "/queues/{q}/why", access: see, handle: (*call).why,
			codes: []surgetank.Code{surgetank.CodeNotFound},
			tag:   "queues", summary: "Why messages wait, and when the backlog will be done",
			about: "Explains the queue's next message, the first message of a group, or one message. docs/flow-control.md lists the verdicts.",
			needs: "Needs read on the queue, or monitoring.",
			params: []param{
				textParam("group", "The first message of this group."),
				textParam("id", "This message."),
			},
			replies: ok("The reason.", settings.Why{}, exampleWhy),
		},
		{
			method: "PUT", pattern: "/queues/{q}", access: configure, handle: (*call).putQueue,
			codes: []surgetank.Code{surgetank.CodeExists},
			tag:   "queues", summary: "Create or change a queue",
			needs: `Needs configure. Unless dead_letter is "-", also needs read, and write on the dead-letter queue, which is QUEUE.dead by default.`,
			params: []param{
				presetParam("mode", "create: 409 if the queue exists. create_if_absent: leave an existing queue unchanged. "+
					"update: 404 if the queue does not exist. merge: change only the settings in the request; "+
					"null sets a setting to its default. No concurrent change of the queue is lost.", "create_or_update", "create_if_absent", "create", "update", "merge"),
			},
			body:    jsonOf(ref("QueueSettings"), `{"group_by":"header:customer","group":{"max_in_flight":1},"level":{"rate":"2000/s"},"retry":{"max_attempts":8,"initial":"1s"},"max_bytes":"50GiB"}`),
			replies: put("The queue existed, and has these settings now.", settings.Queue{}, exampleQueue),
		},
		{
			method: "DELETE", pattern: "/queues/{q}", access: configure, handle: (*call).deleteQueue,
			codes: []surgetank.Code{surgetank.CodeExists},
			tag:   "queues", summary: "Delete a queue and its messages",
			params: []param{
				flagParam("if_unused", "Only without consumers."),
				flagParam("if_empty", "Only without messages."),
			},
			replies: ok("The queue is deleted; removed counts the messages that were not leased.", removedAnswer{}, `{"removed":3}`),
		},
		{
			method: "POST", pattern: "/queues/{q}/purge", access: read, handle: (*call).purge,
			tag: "queues", summary: "Drop every message that is not leased, or only the damaged ones",
			params: []param{
				flagParam("damaged", "Only messages that cannot be read. Later messages of their groups can then be delivered."),
			},
			replies: ok("The messages are dropped.", purgedAnswer{}, `{"purged":7}`),
		},
		{
			method: "POST", pattern: "/queues/{q}/move", access: configure, handle: (*call).move,
			codes: []surgetank.Code{surgetank.CodeExists, surgetank.CodeUncertain},
			tag:   "queues", summary: "Move a queue to another shard while it is in use",
			about: "The queue's own dead-letter queue moves with it. The answer comes when the queue is in its new shard. If the client disconnects before, the queue stays. GET of the queue shows the move. docs/shards.md has the details.",
			body: jsonBody(`{"shard":2,"lease_wait":"30s"}`, readMove, docs{
				"shard":      "The new shard, from 1.",
				"lease_wait": "How long the end of the move waits for leased messages; by default 30s. Messages that are still leased afterwards are delivered again.",
			}),
			replies: ok("The queue is in its new shard.", moveAnswer{}, `{"from":1,"shard":2,"queues":["orders","orders.dead"],"messages":5000,"returned":0}`),
		},
		{
			method: "POST", pattern: "/queues/{q}/pause", access: configure, handle: (*call).pause,
			tag: "queues", summary: "Stop deliveries; publishing goes on",
			body:    jsonBody(`{"for":"10m"}`, readPause, docs{"for": "Resume by itself after this time. Without it, the pause lasts until resume."}),
			replies: ok("Done.", pausedAnswer{}, `{"paused":true}`),
		},
		{
			method: "POST", pattern: "/queues/{q}/resume", access: configure, handle: (*call).resume,
			tag: "queues", summary: "Resume deliveries",
			replies: ok("Done.", pausedAnswer{}, `{"paused":false}`),
		},
		{
			method: "POST", pattern: "/queues/{q}/breaker", access: configure, handle: (*call).setBreaker,
			tag: "queues", summary: "Open or close the breaker of the queue's target",
			about:   "An open breaker stops deliveries, and no attempt counts. Other queues with the same level.target stop, too. A restart forgets it; a pause is kept.",
			body:    jsonBody(`{"op":"open","reason":"maintenance of the database"}`, readBreaker, docs{"op": "open, or close: the load grows from a low level.", "reason": "Shown with the queue and in its history."}),
			replies: ok("Done.", breakerAnswer{}, `{"open":true}`),
		},
		{
			method: "GET", pattern: "/queues/{q}/level/history", access: see, handle: (*call).levelHistory,
			tag: "queues", summary: "Newest changes of the adaptive limit, and newest outages of the target",
			replies: ok("The newest is first.", settings.LevelHistory{}, `{"changes":[{"time":"2026-03-01T12:00:00Z","from":8,"to":12,"reason":"slow_start","ratio":1.1}],"outages":[]}`),
		},
		{
			method: "POST", pattern: "/queues/{q}/redrive", access: read, handle: (*call).redrive,
			tag: "queues", summary: "Move messages to another queue",
			about: "The answer comes after all messages are moved. If the client disconnects, the redrive stops.",
			needs: "Needs read, and write on the target queue. Without to and queue, it needs write on every " +
				"queue of the virtual host.",
			body: jsonBody(`{"to":"orders","rate":"100/s","max":1000}`, readRedrive, docs{
				"to":     "The target queue; by default the queue where each message was dead-lettered last.",
				"reason": "Only messages whose newest death has this reason.",
				"queue":  "Only messages that were dead-lettered last from this queue.",
			}),
			replies: ok("Done.", redriveAnswer{}, `{"matched":5,"moved":5,"skipped":0,"dry_run":false}`),
		},
	}
}
