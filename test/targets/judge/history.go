package judge

import "strings"

// Mode is what the sink does if a row with the same key exists.
type Mode string

// The modes of on_conflict.
const (
	Insert  Mode = "insert"  // no on_conflict: the table has no unique key
	Nothing Mode = "nothing" // on_conflict on a key that no two messages share
	Update  Mode = "update"  // on_conflict on a key that messages share: the newest message's row stays
)

// Message is one sent message. Messages are numbered in publish order, from 1.
type Message struct {
	N      int
	Group  string // empty: no group
	Key    string
	Poison bool // the table always rejects the row: the message must be parked
	// Cells are the texts that a column may show for this message. Columns that are not listed are
	// not compared.
	Cells map[string][]string
}

// Presence says whether a data directory must contain a message.
type Presence uint8

const (
	Absent Presence = iota // never published there, or published after the restored moment
	Maybe                  // the publish was not answered, or not before the copy was made
	Sure                   // confirmed, and the directory was not put back afterwards
)

// Server is one server and its data directory at the end of a round.
type Server struct {
	Name    string
	Holds   map[int]Presence
	Waiting map[int]bool   // messages in the queue: ready, blocked, delayed or leased
	Parked  map[int]string // messages in the dead-letter queue, with their reasons
	State   string         // the sink's state
	Reason  string         // the sink's reason for its state
	Numbers *Numbers       // numbers of a refusal; nil: there are none, or they are older than the last messages
}

// Numbers are the numbers of messages that a refused sink reports.
type Numbers struct {
	Missing int `json:"missing"` // rows that the target lost
	Known   int `json:"known"`   // waiting messages that the target has, or that another directory has parked
	Waiting int `json:"waiting"` // all waiting messages
}

// stopped reports whether the sink ended with a refusal.
func (s *Server) stopped() bool { return s.State == "refused" || s.State == "fenced" }

// Cause is a kind of event after which a sink may refuse its target.
type Cause uint8

const (
	TargetBack    Cause = 1 << iota // the target was put back to an earlier moment, or replaced
	ProgressGone                    // the target lost the sink's progress, or everything
	DirectoryBack                   // a data directory was put back to an earlier moment
	Copied                          // two data directories with a common past were in use
)

// String returns the names of the causes.
func (c Cause) String() string {
	var list []string
	for i, name := range []string{"target back", "progress gone", "directory back", "copied"} {
		if c&(1<<i) != 0 {
			list = append(list, name)
		}
	}
	return strings.Join(list, ", ")
}

// Row is one row of the table.
type Row struct {
	N     int
	Key   string
	Cells map[string]string
}

// History is a finished round.
type History struct {
	Mode     Mode
	Messages map[int]*Message
	Servers  []*Server
	Applied  []int        // every write of a message, in order
	Rows     []Row        // the table
	Removed  map[int]bool // messages whose rows the user deleted; their writes still count
	Causes   Cause
	// Unordered says that a side went back in time, so that a group's order is not checked.
	Unordered bool

	// Forgiven are messages that the chosen way announced to skip or lose. Twice are messages that
	// the way announced to write a second time.
	Forgiven map[int]bool
	Twice    map[int]bool
}
