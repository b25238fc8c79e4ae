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
	Group  string // empty: none
	Key    string
	Poison bool // the table never accepts the message: it must be parked
	// Cells are the texts that a column may show for this message. Columns that are not listed are
	// not compared.
	Cells map[string][]string
}

// Presence is a data directory's knowledge of a message.
type Presence uint8

const (
	Absent Presence = iota // never published there, or published after the moment that the directory was put back to
	Maybe                  // the publish had no answer, or was not answered when the copy was made
	Sure                   // confirmed, and the directory was not put back since
)

// Server is one server and its data directory at the end of a round.
type Server struct {
	Name    string
	Holds   map[int]Presence
	Waiting map[int]bool   // in the queue: ready, blocked, delayed or leased
	Parked  map[int]string // in the dead-letter queue, with the reason
	State   string         // of the sink
	Reason  string         // the sink's reason for its state
	Numbers *Numbers       // of a refusal; nil: the sink returned none, or they are older than the last messages
}

// Numbers are a refused sink's numbers of messages.
type Numbers struct {
	Missing int `json:"missing"` // rows that the target lost
	Known   int `json:"known"`   // waiting messages that the target has, or that were parked in another history
	Waiting int `json:"waiting"` // all waiting messages
}

// stopped reports whether the sink ended with a refusal.
func (s *Server) stopped() bool { return s.State == "refused" || s.State == "fenced" }

// Cause is a kind of event that gives a sink the right to refuse.
type Cause uint8

const (
	TargetBack    Cause = 1 << iota // the target was put back to an earlier moment, or replaced
	ProgressGone                    // the target lost its knowledge of the sink, or everything
	DirectoryBack                   // a data directory was put back to an earlier moment
	Copied                          // two data directories with a common past were in use
)

// String names the causes.
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
	// Unordered says that a side went back in time: groups were not written in order then.
	Unordered bool

	// Forgiven are messages that a chosen way gave up, as announced. Twice are messages that it
	// announced to write a second time.
	Forgiven map[int]bool
	Twice    map[int]bool
}
