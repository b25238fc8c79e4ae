package failpoint

// Point names one point in the code, before or after a step at which a crash matters.
type Point string

// The points, in the order in which a server reaches them: opening, writing, preparing space,
// trimming, snapshots, sinks, the stop.
const (
	OpenUnfinishedRemoved Point = "open: an unfinished file is removed"
	OpenTrimmedRemoved    Point = "open: a trimmed segment is removed"
	OpenRescue            Point = "open: the tail is about to be copied"
	OpenRescueCopied      Point = "open: the tail is copied"
	OpenRescueIndexed     Point = "open: the old tail's index is written"
	OpenRescueSynced      Point = "open: the old tail's index is synced"
	OpenRescueCut         Point = "open: the old tail is cut"
	OpenRescueDone        Point = "open: the cut is synced"
	OpenStateWritten      Point = "open: a new log's state file is synced"
	OpenStateNamed        Point = "open: a new log's state file has its name"
	OpenCreated           Point = "open: a new log is made"
	OpenRestored          Point = "open: the snapshot is read"
	OpenReplayed          Point = "open: the log is replayed"
	OpenEpoch             Point = "open: the new epoch is durable"

	TurnDecided  Point = "turn: decided, not yet with the log"
	TurnAppended Point = "turn: with the log"
	TurnDurable  Point = "turn: durable, nothing released"
	TurnReleased Point = "turn: released"

	LogWrite    Point = "log: a batch is about to be written"
	LogWritten  Point = "log: a batch is written"
	LogIndexed  Point = "log: a segment's index is written"
	LogSynced   Point = "log: a batch is synced"
	LogSettled  Point = "log: a batch is told of"
	LogRoll     Point = "log: the next segment is about to be used"
	LogRolled   Point = "log: the next segment is used"
	LogMark     Point = "log: a mark is about to be written"
	LogMarked   Point = "log: a mark is written"
	StopMarked  Point = "stop: the last mark is written"
	StopSynced  Point = "stop: the last mark is synced"
	StopLast    Point = "stop: the log is closed"
	SegCreated  Point = "segment: the file is made"
	SegRoom     Point = "segment: its room is taken"
	SegHeader   Point = "segment: its header is written"
	SegSynced   Point = "segment: it is synced"
	SegNamed    Point = "segment: it has its name"
	SegDurable  Point = "segment: its name is synced"
	SegReady    Point = "segment: it is ready to be the next"
	SegReuse    Point = "segment: a spare is about to be used again"
	ReserveMade Point = "reserve: the file is synced"
	ReserveDone Point = "reserve: it is ready"

	TrimDecided Point = "trim: about to be written down"
	SlotWritten Point = "trim: the state is written"
	SlotSynced  Point = "trim: the state is synced"
	TrimFile    Point = "trim: a file is gone or a spare"
	TrimDurable Point = "trim: the directory is synced"

	SnapBegun    Point = "snapshot: begun"
	SnapCreated  Point = "snapshot: the file is made"
	SnapFilled   Point = "snapshot: the file is full"
	SnapSynced   Point = "snapshot: the file is synced"
	SnapNamed    Point = "snapshot: the file has its name"
	SnapDurable  Point = "snapshot: its name is synced"
	SnapOldGone  Point = "snapshot: an older one is removed"
	SnapDone     Point = "snapshot: done, nothing is trimmed yet"
	SnapLast     Point = "stop: the closing snapshot is about to be made"
	SnapLastDone Point = "stop: the closing snapshot is stored"

	SinkClaimed   Point = "sink: the target is claimed"
	SinkBatch     Point = "sink: a batch is about to be committed"
	SinkCommitted Point = "sink: a batch is committed, nothing is acked"
	SinkAcked     Point = "sink: the acks are on their way"
	SinkTxBegun   Point = "sink: a transaction has begun"
	SinkTxRows    Point = "sink: the rows are in the transaction"
	SinkTxMoved   Point = "sink: the progress is in the transaction"
)

// All lists all points.
var All = []Point{
	OpenStateWritten, OpenStateNamed, OpenCreated, OpenRescue, OpenRescueCopied, OpenRescueIndexed, OpenRescueSynced, OpenRescueCut, OpenRescueDone,
	OpenRestored, OpenReplayed, OpenEpoch,
	TurnDecided, TurnAppended, TurnDurable, TurnReleased,
	LogWrite, LogWritten, LogSynced, LogSettled, LogMark, LogMarked, LogIndexed, LogRoll, LogRolled,
	SegCreated, OpenUnfinishedRemoved, SegRoom, SegHeader, SegSynced, SegNamed, SegDurable, SegReady, SegReuse, ReserveMade, ReserveDone,
	SnapBegun, SnapCreated, SnapFilled, SnapSynced, SnapNamed, SnapDurable, SnapOldGone, SnapDone,
	TrimDecided, SlotWritten, SlotSynced, OpenTrimmedRemoved, TrimFile, TrimDurable,
	SnapLast, SnapLastDone, StopMarked, StopSynced, StopLast,
	SinkClaimed, SinkBatch, SinkCommitted, SinkAcked, SinkTxBegun, SinkTxRows, SinkTxMoved,
}
