package commitlog

// DamageKind is the kind of damage. There are few kinds, so that metrics can have one counter for
// each.
type DamageKind string

// The kinds of damage.
const (
	DamagedEntry    DamageKind = "entry"    // one entry or several consecutive ones
	DamagedIndex    DamageKind = "index"    // the index of a part of the log; the entries have the same content
	DamagedHeader   DamageKind = "header"   // the header of a part of the log
	DamagedState    DamageKind = "state"    // the record of where the log begins
	DamagedSnapshot DamageKind = "snapshot" // a snapshot of the state
)

// DamageKinds are all kinds.
var DamageKinds = []DamageKind{DamagedEntry, DamagedIndex, DamagedHeader, DamagedState, DamagedSnapshot}

// Damage is stored data that differs from what was written, and that an open log found before a
// reader needed it. A log that checks its data reports damage by a callback, after each check that
// finds it. That needs no verb of Log.
type Damage struct {
	Kind DamageKind
	File string
	At   int64 // position in the file
	// First and Last are the damaged entries. For a snapshot they are its offset, otherwise 0.
	First, Last Offset
	// Unreadable: the disk returned an I/O error, which may pass.
	Unreadable bool
	// Refused: opening the log in its present state would fail.
	Refused bool
	Err     error // the damage in words, with the remedy
}

// Count returns how many things are damaged.
func (d *Damage) Count() int64 {
	if d.Kind == DamagedEntry {
		return int64(d.Last-d.First) + 1
	}
	return 1
}
