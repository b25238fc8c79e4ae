package main

// The names of targets and workloads in flags and results.
const (
	classic   = "rabbitmq-classic"
	quorum    = "rabbitmq-quorum"
	surgetank = "surgetank"
	anyServer = "amqp"
	floor     = "floor"

	publish1   = "publish-1k"
	publish8   = "publish-1k-8"
	sync1      = "sync-1"
	sync64     = "sync-64"
	endToEnd   = "e2e"
	endToEnd5k = "e2e-5k"
	queues1000 = "queues-1000"
	backlog2m  = "backlog"
)
