package lease

import (
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/lease/rules"
)

// Term is the time in which this node owns a log. After Lost, the node must not serve the log.
type Term struct {
	Log string
	// Number is unique for the log and grows from term to term.
	Number uint64

	node   *Node
	lost   chan struct{}
	leave  chan struct{}
	left   bool         // leave is closed; used by the loop
	reason rules.Reason // set before lost is closed
}

// Lost returns a channel that is closed when the term has ended.
func (t *Term) Lost() <-chan struct{} { return t.lost }

// Reason says why the term has ended. It is "" before.
func (t *Term) Reason() string {
	select {
	case <-t.lost:
		return string(t.reason)
	default:
		return ""
	}
}

// Leave returns a channel that is closed when the log should move to another node. Then the owner
// finishes its work, closes the log and calls Resign. After Options.Leave, the term ends anyway.
func (t *Term) Leave() <-chan struct{} { return t.leave }

// Resign ends the term, so that another node can acquire the log at once. The log must be closed.
// If there is no other candidate, this node acquires the log again in a new term.
func (t *Term) Resign() { t.node.post(rules.Resign{Log: t.Log, Term: t.Number}) }

// Announce sets a text that all nodes see as Owner.Data, for example that the log is open. It has
// at most 4 KiB. It is ignored if the term has ended.
func (t *Term) Announce(data string) error {
	if len(data) > maxData {
		return surgetank.FieldErrorf("data", "the text of an announcement has %d bytes; the most are %d", len(data), maxData)
	}
	t.node.post(rules.Announce{Log: t.Log, Term: t.Number, Data: data})
	return nil
}
