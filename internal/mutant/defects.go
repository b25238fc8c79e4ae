package mutant

// Defect is one promise that is broken on purpose.
type Defect string

// The defects. Each text says what is wrong.
const (
	None             Defect = ""
	EarlyRelease     Defect = "outputs leave before their entry is durable"
	AnyEpoch         Defect = "receipts of before a restart are good"
	DedupForgotten   Defect = "a snapshot is restored without its dedup ids"
	EarlyDeadline    Defect = "a lease ends at half its time"
	AckNotLogged     Defect = "an ack is not logged"
	StrictOvertaken  Defect = "a strict group does not wait for its message's next attempt"
	TrimTooFar       Defect = "the log is trimmed behind the newest snapshot, needed or not"
	ExpiryForgotten  Defect = "a snapshot is restored without its times"
	PoisonDropped    Defect = "at the attempt limit a message is dropped"
	SnapshotTooNew   Defect = "a snapshot says that it covers one entry more than it does"
	PurgeTakesLeased Defect = "a purge drops what is leased"
	TrimTooSoon      Defect = "the log is trimmed before the facts that allow it are durable"
	SyncSkipped      Defect = "entries are confirmed without a sync"
	DirSyncDropped   Defect = "names are not synced"
	ChecksumIgnored  Defect = "an entry's checksum is not looked at"
	IDReused         Defect = "a snapshot is restored with the newest message's number free again"
	LeaseNumberTwice Defect = "two leases have one number"
	WatermarkDedup   Defect = "every dedup id up to the highest that came is taken for a duplicate"
	GroupsLost       Defect = "a snapshot is restored without its messages' groups"
	DelayForgotten   Defect = "a message that failed is tried again without its delay"
	GiveBackLost     Defect = "what is given back unseen is acked"
	HeldOvertaken    Defect = "a strict group does not wait behind a message that cannot be read"
	LossUnlisted     Defect = "a repair does not list what is missing"
	AckUnrepaired    Defect = "a repair leaves out acks"
	FullForEver      Defect = "a full disk is not cleared up"

	PublishersForgotten Defect = "a snapshot is restored without its publishers"
	NumbersNotLogged    Defect = "the confirmed numbers of a publisher are not logged"
	ReasonsForgotten    Defect = "a snapshot is restored without why messages came back"
	DelayAges           Defect = "a delayed message ages from its confirmation on"
	AcceptIgnored       Defect = "accept.rate is not enforced"
	BackOffBlocked      Defect = "a message that backs off in a strict group counts as blocked"

	WeightsIgnored     Defect = "groups take turns and their weights do not count"
	AlwaysNew          Defect = "an empty group is forgotten at once, and is new again with its next message"
	FreshStarved       Defect = "fresh messages have no share while a backlog waits"
	ReasonsAlike       Defect = "every failure has the schedule of retry"
	PrioritiesDoNotAge Defect = "low priorities wait until no higher one is left"

	LeaseCrossed      Defect = "two messages with one coalescing key are leased at once"
	SupersededRetried Defect = "a message whose successor waits is tried again"
	KeysForgotten     Defect = "a snapshot is restored without coalescing keys"

	AttemptLostDown Defect = "an attempt is lost while the breaker is open"
	ProbeIgnored    Defect = "the outcome of a probe is ignored"
	AdaptiveIgnored Defect = "the adaptive limit is not enforced"
	ReportIgnored   Defect = "a report about a target without a message is ignored"

	ConditionIgnored  Defect = "a change of metadata is stored although its condition is not met"
	VersionsForgotten Defect = "a snapshot is restored without the versions of metadata"
	WatchedEarly      Defect = "a change of metadata is passed to watchers before it is durable"
	WatchGap          Defect = "a watch of metadata misses a change"

	TransferAckedEarly  Defect = "an outbox loses a message before its queue in another shard has it"
	ArrivedNotRecorded  Defect = "the numbers of messages from other shards are not recorded"
	ArrivedHighest      Defect = "only the highest number of an outbox counts"
	OutboxForgotten     Defect = "an outbox is forgotten when its shard is opened again"
	TimelineIgnored     Defect = "the numbers of a restored outbox count as those before the restore"
	ConfirmOfOneShard   Defect = "a publish to several shards is confirmed by the first of them"
	OutboxShared        Defect = "redriven messages and dead letters have one outbox"
	TransferOvertaken   Defect = "a message that its queue in another shard refuses is overtaken"
	OutboxOvertaken     Defect = "a dead letter does not wait for earlier ones in the outbox"
	ArrivedOnlyInMemory Defect = "a snapshot is restored without the numbers from other shards"
)

// OfShards are the defects that only a broker with several shards can show.
var OfShards = []Defect{TransferAckedEarly, ArrivedNotRecorded, ArrivedHighest, OutboxForgotten, TimelineIgnored, ConfirmOfOneShard, OutboxShared, TransferOvertaken, OutboxOvertaken, ArrivedOnlyInMemory}

// All lists the defects that the simulator must detect. TrimTooSoon is missing, because the clock
// starts trims when almost all entries are already durable. A test of the broker checks for that
// defect.
var All = []Defect{EarlyRelease, AnyEpoch, DedupForgotten, EarlyDeadline, AckNotLogged, StrictOvertaken, TrimTooFar, ExpiryForgotten, PoisonDropped,
	SnapshotTooNew, PurgeTakesLeased, GiveBackLost, SyncSkipped, DirSyncDropped, ChecksumIgnored, IDReused, LeaseNumberTwice, WatermarkDedup, GroupsLost, DelayForgotten,
	HeldOvertaken, LossUnlisted, AckUnrepaired, FullForEver, PublishersForgotten, NumbersNotLogged, ReasonsForgotten, DelayAges, BackOffBlocked, AcceptIgnored,
	WeightsIgnored, AlwaysNew, FreshStarved, PrioritiesDoNotAge, ReasonsAlike, LeaseCrossed, SupersededRetried, KeysForgotten,
	AttemptLostDown, ProbeIgnored, AdaptiveIgnored, ReportIgnored, ConditionIgnored, VersionsForgotten, WatchedEarly, WatchGap}
