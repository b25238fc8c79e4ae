package httpapi

import (
	"fmt"
	"math"
	"slices"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/msgopt"
	"github.com/surgetank/surgetank/internal/settings"
)

const (
	exampleMessage = `{"id":"1-42","receipt":"2.3k.16.7.2n9d1k4qe8yzb","queue":"orders","time":"2026-01-02T03:04:05.1Z","attempt":1,` +
		`"deadline":"2026-01-02T03:04:35.1Z","group":"acme","content_type":"application/json","body":{"total":7}}`
	exampleSettled = `{"done":1,"failed":1,` +
		`"results":[{"receipt":"2.3k.16.7.2n9d1k4qe8yzb","ok":true},{"receipt":"2.3k.17.8.2n9d1k4qe8yzb","ok":false,"code":"lease_lost","detail":"the lease has ended"}]}`

	aboutSettled    = "The changes are durable. Each receipt has a result; code lease_lost means that its lease had ended."
	ownSubscription = "Needs to be the user who subscribed, and read on the queue."
)

var idsParam = presetParam("ids", "How ids are returned: one by one, as ranges, or not at all.", "list", "ranges", "none")

// numberingHeaders are the request headers that numberingOf reads.
var numberingHeaders = []param{
	headerParam(publisherHeader, ref("Publisher"), "The publisher that numbers the messages of the request. "+
		"Send the request again with the same id and numbers, and each message is stored once, on every queue."),
	headerParam(sequenceHeader, ref("Sequence"), "With Surgetank-Publisher: the number of the first message of the request. The others count up from it."),
}

// optionHeaders returns the request headers that messageOptions reads.
func optionHeaders() []param {
	var list []param
	for i := range msgopt.Table {
		if o := &msgopt.Table[i]; o.Header != "" {
			list = append(list, headerParam(o.Header, optionSchema(o), plain(o.Help)))
		}
	}
	return append(list,
		headerParam("Surgetank-Dedup-Prefix", ref("Name"), "With format or raw: each message's dedup id is this prefix and the number of its line. "+
			"Empty lines count too. With format=json it is the number of the value."),
		headerParam("Surgetank-Dedup-First", object{{"type", "integer"}, {"minimum", 0}}, "With Surgetank-Dedup-Prefix: the number of the first line, 0 by default."),
		headerParam("Surgetank-Header-NAME", object{{"type", "string"}}, "The message's header NAME, in lower case. There can be many."),
	)
}

// messageRoutes returns the routes of messages of a queue in a virtual host.
func messageRoutes(l *Limits) []route {
	return []route{
		{
			method: "POST", pattern: "/queues/{q}/messages", access: write, handle: (*call).publish,
			tag: "messages", summary: "Publish",
			about: "The body is one raw message, NDJSON with one message object per line, or text that format " +
				"splits into messages. A wrong line is refused by its number, and nothing of that request " +
				"is published. If the queue refuses some messages because it is full, the answer has this " +
				"error and the result of each message. " +
				fmt.Sprintf("At most %d messages and %s at once.", l.MaxLines, settings.FormatSize(l.MaxBody)),
			params: slices.Concat([]param{
				choiceParam("format", "How the body is split into messages. lines: every line that is not empty is a body, byte "+
					"for byte. ndjson: every line that is not blank is a body, and must be a JSON value. json: "+
					"every value is a body, and so is every element of a top-level array; space between tokens "+
					"is removed. csv: every row is a body, a JSON object of strings with the names of the "+
					"header row. A byte order mark and carriage returns at line ends are removed. UTF-16 with a "+
					"byte order mark is converted. Other carriage returns are refused.", "lines", "csv", "ndjson", "json"),
				textParam("delimiter", "With format=csv: the character between fields, or the word tab. A comma by default."),
				choiceParam("raw", "raw=lines is format=lines.", "lines"),
				idsParam,
			}, optionHeaders(), numberingHeaders),
			body: body{
				rawContent("The unchanged body of one message, of any type. curl's default "+
					"application/x-www-form-urlencoded counts as no type.", "any bytes"),
				ndjson("NewMessage", `{"body": {"total": 7}, "group": "acme"}`, `{"body_base64": "AP8=", "delay": "1.5s"}`),
			},
			replies: created("Every message is on disk.", publishedAnswer{}, `{"published":2,"duplicates":0,"ids":["1-42","1-43"]}`),
		},
		{
			method: "GET", pattern: "/queues/{q}/messages", access: read, handle: (*call).peek,
			tag: "messages", summary: "Show messages without leasing them",
			params: []param{
				numberParam("max", uint64(l.MaxReceive), "Messages; 10 by default."),
				numberParam("after", math.MaxInt64, "Start after the message with this number, which is the second part of an id."),
				choiceParam("state", "Only messages in this state.", "ready", "blocked", "delayed", "leased", "damaged"),
				numberParam("max_bytes", 64<<20, "The limit for all bodies; 4 MiB by default."),
				textParam("id", "Only this message."),
			},
			replies: ok("Messages in the order of their numbers.", messagesAnswer{}, `{"messages":[{"id":"1-42","queue":"orders","time":"2026-01-02T03:04:05Z","attempt":1,"state":"ready","body":{"total":7}}]}`),
		},
		{
			method: "POST", pattern: "/queues/{q}/receive", access: read, handle: (*call).receive,
			codes: []surgetank.Code{surgetank.CodeExists},
			tag:   "messages", summary: "Lease messages",
			about: "If a client disconnects before the answer, the messages return to the queue, uncounted.",
			body: jsonBody(`{"max":100,"wait":"20s","lease":"30s"}`, readReceive, docs{
				"wait":      "The wait for the first message.",
				"lease":     "By default the queue's lease.",
				"max_bytes": "The approximate limit for all bodies; at least one message is returned.",
				"ack":       "false: the messages are settled when they are delivered; at most 64 are returned.",
			}),
			replies: ok("Messages; an empty list if none came in time.", messagesAnswer{}, `{"messages":[`+exampleMessage+`]}`),
		},
		{
			method: "POST", pattern: "/queues/{q}/ack", access: read, handle: (*call).ack,
			tag: "messages", summary: "Ack messages",
			body:    jsonBody(`{"receipts":["2.3k.16.7.2n9d1k4qe8yzb"]}`, readAck, docs{"elapsed": "How long the target worked on each of them. Without it, the server measures."}),
			replies: ok(aboutSettled, settledAnswer{}, exampleSettled),
		},
		{
			method: "POST", pattern: "/queues/{q}/nack", access: read, handle: (*call).nack,
			tag: "messages", summary: "Nack messages, or dead-letter them",
			body: jsonBody(`{"receipts":["2.3k.16.7.2n9d1k4qe8yzb"],"delay":"5s","reason":"timeout"}`, readNack, docs{
				"delay":       "The delay before the next attempt; by default the queue's back-off.",
				"target":      "down: the target cannot be reached, so the breaker can open. busy: the target asked for less load; the attempt does not count.",
				"retry_after": "How long the target asked for a pause.",
				"count":       "false: this attempt does not count towards the limit.",
				"dead_letter": "true: no further attempt; the message goes to the dead-letter queue.",
			}),
			replies: ok(aboutSettled, settledAnswer{}, exampleSettled),
		},
		{
			method: "POST", pattern: "/queues/{q}/extend", access: read, handle: (*call).extend,
			tag: "messages", summary: "Extend leases",
			body: jsonBody(`{"receipts":["2.3k.16.7.2n9d1k4qe8yzb"],"lease":"1m"}`, readExtend, docs{
				"lease": "The new lease from now; by default the queue's.",
			}),
			replies: ok(aboutSettled, settledAnswer{}, exampleSettled),
		},
		{
			method: "POST", pattern: "/queues/{q}/subscribe", access: read, handle: (*call).subscribe,
			codes: []surgetank.Code{surgetank.CodeExists},
			tag:   "subscriptions", summary: "Attach a consumer",
			about: "A consumer that stays attached keeps its position among the queue's consumers between " +
				"polls. Simple consumers use receive.",
			body: jsonBody(`{"credit":100,"lease":"forever"}`, readSubscribe, docs{
				"credit": "The largest number of leased messages; with manual_credit, of deliveries before more credit is added.",
				"lease":  "forever: until the subscription ends.",
				"pool":   "Subscriptions of one user with the same pool share pool_limit.",
			}),
			replies: created("A subscription. It ends after its ttl without a request.", subscribedAnswer{}, `{"subscription":"K2J7Q5Z6W4YV3HTBN5O3VQX2DA","ttl":"30s"}`),
		},
	}
}

// sharedRoutes returns the routes of messages of several queues, and of subscriptions.
func sharedRoutes() []route {
	return []route{
		{
			method: "POST", pattern: "/v1/publish", access: loggedIn, handle: (*call).publishMany,
			codes: []surgetank.Code{surgetank.CodeNotFound},
			tag:   "messages", summary: "Publish to several queues",
			about:   "NDJSON whose message objects also have queue or queues, and vhost.",
			needs:   "Needs write on each of these queues.",
			params:  append([]param{idsParam}, numberingHeaders...),
			body:    body{ndjson("RoutedMessage", `{"queue": "orders", "body": {"total": 7}}`, `{"queues": ["orders", "audit"], "body": 8}`)}.must(),
			replies: created("Every message is on disk in all of its queues.", publishedAnswer{}, `{"published":1,"duplicates":0,"ids":["1-42"]}`),
		},
		{
			method: "POST", pattern: "/v1/settle", access: loggedIn, handle: (*call).settle,
			tag: "messages", summary: "Settle leases of any queues, each with its own operation",
			needs: "Needs read on each queue.",
			body: jsonBody(`{"settlements":[{"receipt":"2.3k.16.7.2n9d1k4qe8yzb","op":"ack"},{"receipt":"2.3k.17.8.2n9d1k4qe8yzb","op":"nack","delay":"5s"}]}`, func(f *fields, l *Limits) []surgetank.Settlement {
				f.need("settlements")
				return readSettlements(f, l)
			}, nil),
			replies: ok(aboutSettled, settledAnswer{}, exampleSettled),
		},
		{
			method: "POST", pattern: "/v1/transact", access: loggedIn, handle: (*call).transact,
			codes: []surgetank.Code{surgetank.CodeNotFound, surgetank.CodeLeaseLost},
			tag:   "messages", summary: "Publish and settle in one step",
			about:   "An error means that nothing was done.",
			needs:   "Needs write on the queues of messages, and read on the queues of settlements.",
			body:    jsonOf(transactSchema, `{"messages":[{"queue":"orders","body":{"total":7}}],"settlements":[]}`).must(),
			replies: created("All changes are durable.", publishedAnswer{}, `{"published":1,"duplicates":0,"ids":["2-7"]}`),
		},
		{
			method: "POST", pattern: "/v1/subscriptions/{s}/receive", access: loggedIn, handle: (*call).subscriptionReceive,
			tag: "subscriptions", summary: "Receive the messages of a subscription, or wait for them",
			about: "404 with code closed if the subscription has ended.", needs: ownSubscription,
			body: jsonBody(`{"max":100,"wait":"20s","poll":1}`, readPoll, docs{
				"poll": "The client's number of this poll, from 1. If a poll is sent again with the same number, " +
					"the messages of the lost answer first return to the queue.",
			}),
			replies: ok("Messages; an empty list if none came in time.", messagesAnswer{}, `{"messages":[`+exampleMessage+`],"floor":40}`),
		},
		{
			method: "POST", pattern: "/v1/subscriptions/{s}/credit", access: loggedIn, handle: (*call).subscriptionCredit,
			tag: "subscriptions", summary: "Add or remove credit, set the pool's limit, or only keep the subscription alive",
			about: "404 with code closed if the subscription has ended.", needs: ownSubscription,
			body:    jsonBody(`{"add":10}`, readCredit, nil),
			replies: ok("Done.", floorAnswer{}, `{"floor":40}`),
		},
		{
			method: "POST", pattern: "/v1/subscriptions/{s}/cancel", access: loggedIn, handle: (*call).subscriptionCancel,
			tag: "subscriptions", summary: "Stop deliveries; received messages stay leased",
			about: "404 with code closed if the subscription has ended.", needs: ownSubscription,
			params: []param{
				numberParam("unseen", 1<<53, "The number of a poll whose answer was lost. The answer's messages return to the queue, "+
					"uncounted."),
			},
			replies: ok("Done.", cancelledAnswer{}, `{"cancelled":true}`),
		},
		{
			method: "DELETE", pattern: "/v1/subscriptions/{s}", access: loggedIn, handle: (*call).subscriptionClose,
			tag: "subscriptions", summary: "End a subscription; its leased messages return to the queue",
			about: "404 with code closed if the subscription has ended.", needs: ownSubscription,
			params: []param{
				numberParam("unseen", 1<<53, "The number of a poll whose answer was lost. The answer's messages return to the queue, "+
					"uncounted."),
			},
			replies: ok("Done.", closedAnswer{}, `{"closed":true}`),
		},
	}
}
