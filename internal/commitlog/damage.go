package commitlog

// DamageKind says what kind of thing is damaged. There are few, so that figures can be kept by
// kind.
type DamageKind string

// The kinds of damage.
const (
	DamagedEntry    DamageKind = "entry"    // one or several in a row
	DamagedIndex    DamageKind = "index"    // of a part of the log; the entries say the same
	DamagedHeader   DamageKind = "header"   // of a part of the log
	DamagedState    DamageKind = "state"    // what says where the log begins
	DamagedSnapshot DamageKind = "snapshot" // a copy of the state
)

// DamageKinds are all of them.
var DamageKinds = []DamageKind{DamagedEntry, DamagedIndex, DamagedHeader, DamagedState, DamagedSnapshot}

// Damage is something at rest that an open log found not to be what was written, before anybody
// needed it. A log that looks after what it keeps tells its owner by a callback, again at every
// look as long as it is so; it needs no verb for that.
type Damage struct {
	Kind DamageKind
	File string
	At   int64 // byte
	// First and Last are entries that are damaged; of a snapshot, the offset that it covers;
	// otherwise 0.
	First, Last Offset
	// Unreadable: the disk gives an error and no bytes, which may pass.
	Unreadable bool
	// Refused: an opening of the log as it is now would fail.
	Refused bool
	Err     error // in words, with the remedy
}

// Count is how many things are damaged.
func (d *Damage) Count() int64 {
	if d.Kind == DamagedEntry {
		return int64(d.Last-d.First) + 1
	}
	return 1
}
