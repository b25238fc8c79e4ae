package judge

import "strings"

// Mode is what the sink does when a row with the same key is in the table already.
type Mode string

// The modes of on_conflict.
const (
	Insert  Mode = "insert"  // no on_conflict: the table has no unique key
	Nothing Mode = "nothing" // on_conflict on a key that no two messages share
	Update  Mode = "update"  // on_conflict on a key that messages share: the newest message's row stays
)

// Message is one message that was sent. Messages are numbered in the order of their publishing,
// from 1.
type Message struct {
	N      int
	Group  string // empty: none
	Key    string
	Poison bool // the table never takes the message: it must be parked
	// Cells are the texts that a column may show for this message. A column that is not here is not
	// compared.
	Cells map[string][]string
}

// Presence says what a data directory knows about a message.
type Presence uint8

const (
	Absent Presence = iota // never published there, or published after the moment to which the directory was put back
	Maybe                  // the publish had no answer, or the copy was made at that moment
	Sure                   // confirmed, and the directory was not put back since
)

// Server is one surgetank and its data directory at the end of a round.
type Server struct {
	Name    string
	Holds   map[int]Presence
	Waiting map[int]bool   // in the queue: ready, blocked, delayed or leased
	Parked  map[int]string // in the dead-letter queue, with the reason
	State   string         // of the sink
	Reason  string         // the sink's words for its state
	Numbers *Numbers       // of a refusal; nil: the sink gave none, or they are of before the last messages came
}

// Numbers are what a sink that has refused says about messages.
type Numbers struct {
	Missing int `json:"missing"` // rows that the target lost
	Known   int `json:"known"`   // waiting messages that the target has, or that were parked in another history
	Waiting int `json:"waiting"` // waiting messages in all
}

// stopped says that the sink ended with a refusal.
func (s *Server) stopped() bool { return s.State == "refused" || s.State == "fenced" }

// Cause is a kind of event that gives a sink the right to refuse.
type Cause uint8

const (
	TargetBack    Cause = 1 << iota // the target was put back to an earlier moment, or replaced
	ProgressGone                    // the target lost what it knew about the sink, or everything
	DirectoryBack                   // a data directory was put back to an earlier moment
	Copied                          // two data directories with one past were at work
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
	// Unordered says that time went back before: groups were not written in order then.
	Unordered bool

	// Forgiven are messages that a way on gave up, in words, before it was taken. Twice are
	// messages that it said it would write a second time.
	Forgiven map[int]bool
	Twice    map[int]bool
}
