package commitlog

// DamageKind is the kind of damage. There are few kinds, so that metrics can have one counter for
// each.
type DamageKind string

// The kinds of damage.
const (
	DamagedEntry    DamageKind = "entry"    // one entry or several consecutive ones
	DamagedIndex    DamageKind = "index"    // the index of a part of the log; the log can rebuild it from the entries
	DamagedHeader   DamageKind = "header"   // the header of a part of the log
	DamagedState    DamageKind = "state"    // the record of where the log begins
	DamagedSnapshot DamageKind = "snapshot" // a snapshot of the state
)

// DamageKinds are all kinds.
var DamageKinds = []DamageKind{DamagedEntry, DamagedIndex, DamagedHeader, DamagedState, DamagedSnapshot}

// Damage describes stored data that differs from the written data. An open log found it before a
// reader needed the data. A log that checks its data reports damage by a callback, after each check
// that finds it.
type Damage struct {
	Kind DamageKind
	File string
	At   int64 // position in the file
	// First and Last are the first and last damaged entry. For a snapshot both are its offset, and
	// for other kinds 0.
	First, Last Offset
	// Unreadable means that the disk returned an I/O error, which can be passing.
	Unreadable bool
	// Refused means that opening the log in its present state would fail.
	Refused bool
	Err     error // the damage in words, with the remedy
}

// Count returns the number of damaged entries, or 1 for any other kind.
func (d *Damage) Count() int64 {
	if d.Kind == DamagedEntry {
		return int64(d.Last-d.First) + 1
	}
	return 1
}
