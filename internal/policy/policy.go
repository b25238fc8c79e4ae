package policy

import (
	"regexp"
	"strings"

	"github.com/surgetank/surgetank"
)

// Limits of policies.
const (
	MaxPatternLen = 1024 // bytes
	MaxPolicies   = 1024 // per virtual host
	MaxPriority   = 1 << 30
)

// Target is the kind of object that a policy applies to.
type Target string

// Targets of policies. There are no streams: policies for them are accepted, so that definitions
// can be loaded, but apply to nothing.
const (
	Queues        Target = "queues"
	QuorumQueues  Target = "quorum_queues"
	ClassicQueues Target = "classic_queues"
	Streams       Target = "streams"
	Exchanges     Target = "exchanges"
	All           Target = "all"
)

// Policy is one policy, as operators write it and doors show it.
type Policy struct {
	Vhost    string         `json:"vhost"`
	Name     string         `json:"name"`
	Pattern  string         `json:"pattern"`                                                                   // RE2; it matches anywhere in a name unless it has anchors
	ApplyTo  Target         `json:"apply_to" enum:"queues,quorum_queues,classic_queues,streams,exchanges,all"` // empty: All
	Priority int            `json:"priority" min:"-1073741824"`                                                // the highest priority of the matching policies applies; of equal ones, the first name
	Settings map[string]any `json:"settings" schema:"PolicySettings"`                                          // see Keys
}

// compiled is a Policy ready to apply. It is immutable.
type compiled struct {
	Policy
	vhostID string // identifies the virtual host, even if another of the same name is created later
	pattern *regexp.Regexp
	rules   rules
}

// compile checks a policy. Errors are CodeInvalid and name the wrong field.
func compile(p Policy) (*compiled, error) {
	if err := surgetank.ValidateName("policy", p.Name); err != nil {
		return nil, err
	}
	if p.ApplyTo == "" {
		p.ApplyTo = All
	}
	switch p.ApplyTo {
	case Queues, QuorumQueues, ClassicQueues, Streams, Exchanges, All:
	default:
		return nil, surgetank.FieldErrorf("apply_to", "apply_to: want queues, quorum_queues, classic_queues, streams, exchanges or all, not %.40q", string(p.ApplyTo))
	}
	if p.Pattern == "" {
		return nil, surgetank.FieldErrorf("pattern", `pattern: it is missing; ".*" matches every name`)
	}
	if len(p.Pattern) > MaxPatternLen {
		return nil, surgetank.FieldErrorf("pattern", "pattern: it has %d bytes; at most %d are allowed", len(p.Pattern), MaxPatternLen)
	}
	if p.Priority < -MaxPriority || p.Priority > MaxPriority {
		return nil, surgetank.FieldErrorf("priority", "priority: want a number between %d and %d, not %d", -MaxPriority, MaxPriority, p.Priority)
	}
	re, err := regexp.Compile(p.Pattern)
	if err != nil {
		return nil, surgetank.FieldErrorf("pattern", "pattern: it is not a regular expression (RE2): %v", err)
	}
	r, err := parseSettings(p.Settings)
	if err != nil {
		return nil, err
	}
	if p.ApplyTo != Exchanges && p.ApplyTo != All && r.door.HasAlternate && len(p.Settings) == 1 {
		return nil, surgetank.FieldErrorf("settings.alternate-exchange", "settings.alternate-exchange: queues have none; let the policy apply to exchanges")
	}
	return &compiled{Policy: p, pattern: re, rules: r}, nil
}

// covers reports whether the policy applies to a queue or exchange of this name. what has the
// targets that include it.
func (c *compiled) covers(what [2]Target, name string) bool {
	return (c.ApplyTo == All || c.ApplyTo == what[0] || c.ApplyTo == what[1]) && c.pattern.MatchString(name)
}

// before compares two policies by priority, then by name. It is negative if c comes first.
func (c *compiled) before(o *compiled) int {
	if c.Priority != o.Priority {
		if c.Priority > o.Priority {
			return -1
		}
		return 1
	}
	return strings.Compare(c.Name, o.Name)
}
