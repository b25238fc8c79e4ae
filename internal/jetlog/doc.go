// Package jetlog is the log on NATS JetStream: one replicated stream for each log, and a second one
// for its snapshots.
//
//	broker ── commitlog.Log ──► fenced.Log ── fenced.Stream ──► Stream ── NATS ──► leader ──► 2 replicas
//	                            the protocol                    requests            sync on a quorum
//
//	stream              subjects                               contents
//	SURGETANK_LOG_<id>  surgetank.log.<id>                     records: entries and F and S records
//	SURGETANK_SNAP_<id> surgetank.snap.<id>.chunk.<at>.<s>.<i>  pieces of snapshot s, at most 512 KiB
//	                    surgetank.snap.<id>.manifest.<at>.<s>   what makes snapshot s complete
//
// An append is one message with the header Nats-Expected-Last-Sequence. The answer comes to an
// inbox whose name has the epoch and the number of the blob. No other condition is ever sent:
// Nats-Expected-Last-Msg-Id stops a replicated stream for good.
//
// A server answers after a quorum has the message on disk. This is true only if all servers sync
// always, and if the streams have the settings of this package. So Acquire checks both.
package jetlog
