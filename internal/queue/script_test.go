package queue

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/settings"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts in testdata print as what they expect; read the difference before you commit it")

// TestScripts runs every file of testdata. A file has blocks: commands, one on a line, then "----",
// then the output of the commands up to an empty line. Each command is a turn of its own. Time
// moves only by "advance". After every turn all invariants are checked, and a replay of the whole
// log must give the same durable state.
//
//	queue NAME KEY=VALUE…            create or change a queue; "declare new|absent|update NAME …" for the other modes
//	pub QUEUE[,QUEUE] BODY… [group= key= dedup= delay= ttl= prio= from=PUBLISHER:SEQUENCE]
//	sub NAME QUEUE credit=N [manual noack exclusive single own lease= run= pool= prio=]
//	recv NAME QUEUE N [lease= noack] at once; "wait NAME QUEUE N": until the first message
//	credit NAME N · pool N LIMIT · stop NAME · detach NAME [all] [back=QUEUE/SEQ,…]
//	ack|nack|reject|extend QUEUE/SEQ[#LEASE]… [delay= reason= uncounted lease=]
//	    … [target=down|busy retry_after= elapsed=]; breaker QUEUE open|close [why=]; level QUEUE;
//	    report QUEUE up|down [after=]
//	tx COMMAND ; COMMAND …           pub and settlements, all or nothing
//	pause QUEUE [for= by=]
//	purge|resume|delete|info|why|peek QUEUE, explain QUEUE [group= seq=], redrive FROM [to= max= reason= queue= dry]
//	meta NAMESPACE NAME [VALUE] [if=ENTRY.POSITION] · versions NAMESPACE
//	    full on|off · advance D · snapshot · restart [snapshot] · relocate
//	new                              begin again without queues, at the time of the start
//	records on|off                   print the facts of every turn
//	tokens on|off                    print the fencing tokens of hand-outs, as EPOCH:LEASE
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts found", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := newScript(t).run(string(text))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(strings.Split(string(text), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("%s: the machine does otherwise (-expected +now; -rewrite takes it over):\n%s", file, diff)
			}
		})
	}
}

type script struct {
	*rig
	t         *testing.T
	records   bool
	tokens    bool
	out       strings.Builder
	consumers map[string]uint64
	names     map[uint64]string
	receipts  map[string][]surgetank.Receipt // by QUEUE/SEQ, oldest first
}

func newScript(t *testing.T) *script {
	return &script{rig: newRig(t, Limits{}, 1), t: t, consumers: map[string]uint64{}, names: map[uint64]string{}, receipts: map[string][]surgetank.Receipt{}}
}

// run returns the script with the actual output in place of the expected one.
func (s *script) run(text string) string {
	var result strings.Builder
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		switch {
		case line == "----":
			result.WriteString("----\n" + s.out.String())
			s.out.Reset()
			for i+1 < len(lines) && lines[i+1] != "" {
				i++
			}
			continue
		case line != "" && !strings.HasPrefix(line, "#"):
			s.command(line)
			check(s.t, s.m)
			if live, again := dump(s.m, s.now), dump(s.replayed(len(s.log)), s.now); live != again {
				s.t.Errorf("after %q: replay results in another state:\n%s", line, cmp.Diff(live, again))
			}
		}
		result.WriteString(line)
		if i < len(lines)-1 {
			result.WriteByte('\n')
		}
	}
	return result.String()
}

func (s *script) printf(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

// arguments are the words of a command: plain words, and words of the form key=value.
type arguments struct {
	words []string
	vals  map[string]string
}

func parse(line string) (a arguments) {
	a.vals = map[string]string{}
	for _, w := range strings.Fields(line) {
		if k, v, ok := strings.Cut(w, "="); ok {
			a.vals[k] = v
		} else {
			a.words = append(a.words, w)
		}
	}
	return a
}

func (a *arguments) has(word string) bool {
	i := slices.Index(a.words, word)
	if i >= 0 {
		a.words = slices.Delete(a.words, i, i+1)
	}
	return i >= 0
}

func (a *arguments) duration(key string) time.Duration {
	switch v := a.vals[key]; v {
	case "":
		return 0
	case "backoff", "forever":
		return -1
	default:
		d, err := time.ParseDuration(v)
		if err != nil {
			panic(err)
		}
		return d
	}
}

func (a *arguments) number(key string) int {
	n, _ := strconv.Atoi(a.vals[key])
	return n
}

// config parses settings under the keys of the configuration file.
func (a *arguments) config() (surgetank.QueueConfig, error) {
	tree := map[string]any{}
	for key, val := range a.vals {
		at, path0 := tree, key
		if section, inner, ok := strings.Cut(key, "."); ok {
			if tree[section] == nil {
				tree[section] = map[string]any{}
			}
			at, key = tree[section].(map[string]any), inner
		}
		if inner, sub, ok := strings.Cut(key, "."); ok && strings.HasPrefix(path0, "level.adaptive.") {
			m, _ := at[inner].(map[string]any)
			if m == nil {
				m = map[string]any{}
				at[inner] = m
			}
			at, key = m, sub
		}
		if setting, name := settings.CutName(path0); name != "" {
			_, key, _ = strings.Cut(setting, ".")
			names := []string{key, name}
			if rule, field, ok := strings.Cut(name, "."); ok {
				names = []string{key, rule, field} // a name that contains a section
			}
			for _, n := range names[:len(names)-1] {
				if at[n] == nil {
					at[n] = map[string]any{}
				}
				at = at[n].(map[string]any)
			}
			key = names[len(names)-1]
		}
		if n, err := strconv.Atoi(val); err == nil {
			at[key] = n
		} else if x, err := strconv.ParseFloat(val, 64); err == nil {
			at[key] = x
		} else if val == "true" {
			at[key] = true
		} else {
			at[key] = val
		}
	}
	return settings.Decode(tree)
}

func (s *script) message(a *arguments, body string) surgetank.Message {
	var headers []surgetank.Header
	if k := a.vals["key"]; k != "" {
		headers = []surgetank.Header{{Name: keyHeader, Value: k}}
	}
	return surgetank.Message{Headers: headers, Body: []byte(body), Group: a.vals["group"], DedupID: a.vals["dedup"], Priority: uint8(a.number("prio")),
		Delay: a.duration("delay"), TTL: a.duration("ttl")}
}

func (s *script) publish(a *arguments) *Publish {
	var ps []surgetank.Publishing
	for _, body := range a.words[2:] {
		p := surgetank.Publishing{Queues: strings.Split(a.words[1], ","), Message: s.message(a, body)}
		if who, first, ok := strings.Cut(a.vals["from"], ":"); ok {
			n, _ := strconv.ParseUint(first, 10, 64)
			p.Publisher, p.Sequence = who+strings.Repeat("-", max(0, surgetank.MinPublisherLen-len(who))), n+uint64(len(ps))
		}
		ps = append(ps, p)
	}
	return s.withKeys(publishAll(ps...))
}

var settleOps = map[string]surgetank.SettleOp{"ack": surgetank.Ack, "nack": surgetank.Nack, "reject": surgetank.Reject, "extend": surgetank.Extend}

func (s *script) settlements(a *arguments) (items []surgetank.Settlement) {
	uncounted := a.has("uncounted")
	for _, w := range a.words[1:] {
		items = append(items, surgetank.Settlement{Receipt: s.receipt(w), Op: settleOps[a.words[0]], Delay: a.duration("delay"),
			Lease: a.duration("lease"), Reason: a.vals["reason"], Uncounted: uncounted,
			Target: map[string]surgetank.TargetReport{"down": surgetank.TargetDown, "busy": surgetank.TargetBusy}[a.vals["target"]], RetryAfter: a.duration("retry_after"), Elapsed: a.duration("elapsed")})
	}
	return items
}

// receipt returns the newest receipt of a message, or with #N the message's N-th receipt.
func (s *script) receipt(word string) surgetank.Receipt {
	name, nth, ok := strings.Cut(word, "#")
	all := s.receipts[name]
	if len(all) == 0 {
		return surgetank.Receipt{}
	}
	if !ok {
		return all[len(all)-1]
	}
	n, _ := strconv.Atoi(nth)
	return all[n-1]
}

func (s *script) id(id surgetank.MessageID) string {
	if q := s.m.byID[id.Queue]; q != nil {
		return fmt.Sprintf("%s/%d", q.name, id.Seq)
	}
	return id.String()
}

func (s *script) published(c *Publish) {
	for i, r := range c.Results {
		switch {
		case r.Err != nil:
			s.printf("%s: %s", c.Msgs[i].Message.Body, failure(r.Err))
		case r.Duplicate:
			s.printf("%s: duplicate of %s", c.Msgs[i].Message.Body, s.id(r.ID))
		default:
			s.printf("%s: %s", c.Msgs[i].Message.Body, s.id(r.ID))
		}
	}
}

func failure(err error) string { return fmt.Sprintf("%s: %v", surgetank.CodeOf(err), err) }

// turn runs one command. It prints the command's result with result, then the output of the turn.
func (s *script) turn(cmd Command, result func()) {
	before := len(s.log)
	out := s.step(cmd)
	if result != nil {
		result()
	}
	s.output(out, before)
	s.settleDown(func(o *Output) { s.output(o, len(s.log)-min(1, o.Records)) })
}

func (s *script) output(out *Output, before int) {
	if s.records {
		for _, e := range s.log[before:] {
			_ = Records(e, func(_ EntryHeader, r *Record) error { s.printf("log %s", s.fact(r)); return nil })
		}
	}
	for i := range out.Handouts {
		s.handout(&out.Handouts[i])
	}
	for _, e := range out.Ended {
		if e.Err != nil {
			s.printf("%s ended: %s", s.names[e.Consumer], failure(e.Err))
		} else {
			s.printf("%s ended", s.names[e.Consumer])
		}
	}
}

func (s *script) handout(h *Handout) {
	name := fmt.Sprintf("%s/%d", h.Queue.Name(), h.Seq)
	s.receipts[name] = append(s.receipts[name], surgetank.Receipt{ID: surgetank.MessageID{Queue: h.Queue.ID(), Seq: h.Seq}, Epoch: s.m.Epoch(), Incarnation: s.m.Incarnation(), Lease: h.Lease})
	token := ""
	if s.tokens && h.Token != 0 {
		token = fmt.Sprintf(" token=%d:%d", h.Token>>leaseBits, h.Token&(1<<leaseBits-1))
	}
	s.printf("> %s %s%s", s.names[h.Consumer], s.shown(h, ""), token)
}

// shown formats a message in one line.
func (s *script) shown(h *Handout, state surgetank.State) string {
	var b strings.Builder
	stored, deaths := s.load(h)
	fmt.Fprintf(&b, "%s/%d=%s", h.Queue.Name(), h.Seq, stored.Message.Body)
	if state != "" {
		fmt.Fprintf(&b, " %s", state)
	}
	if h.Group != "" {
		fmt.Fprintf(&b, " group=%s", h.Group)
	}
	if h.Attempt > 1 {
		fmt.Fprintf(&b, " attempt=%d", h.Attempt)
	}
	if h.Redelivered {
		b.WriteString(" again")
	}
	if state == "" {
		switch {
		case h.Lease == 0:
			b.WriteString(" settled")
		case h.Deadline == 0:
			b.WriteString(" until=detach")
		case h.Deadline-s.now != int64(surgetank.DefaultLease):
			fmt.Fprintf(&b, " until=%s", relative(h.Deadline, s.now))
		}
	}
	for _, d := range deaths {
		fmt.Fprintf(&b, " died(%s %s attempts=%d", d.Queue, d.Reason, d.Attempts)
		if d.Detail != "" {
			fmt.Fprintf(&b, " %q", d.Detail)
		}
		b.WriteString(")")
	}
	return b.String()
}

// fact formats a record in one line. Times are relative to now.
func (s *script) fact(r *Record) string {
	kinds := map[Kind]string{kindEnqueued: "enqueued", kindMoved: "moved", kindAcked: "acked", kindReturned: "returned", kindFailed: "failed", kindTransferred: "transferred",
		kindRemoved: "removed", kindPurged: "purged", kindQueueSet: "queue_set", kindQueueGone: "queue_gone", kindMetaSet: "meta_set", kindEpoch: "epoch", kindOpened: "epoch",
		kindConfirmed: "confirmed", kindClosed: "closed", kindCoalesced: "coalesced"}
	k := kinds[r.Kind]
	switch r.Kind {
	case kindEnqueued, kindMoved:
		for _, t := range r.Targets {
			k += fmt.Sprintf(" %d-%d", t.Queue, t.Seq)
			if t.Group != "" {
				k += " group=" + t.Group
			}
			if t.Expires != 0 {
				k += " expires=" + relative(t.Expires, s.now)
			}
			if t.Supersedes != 0 {
				k += fmt.Sprintf(" supersedes %d", t.Supersedes)
			}
			if t.Key != (CoalesceKey{}) && t.Due != r.NotBefore {
				k += " due=" + relative(t.Due, s.now)
			}
			if t.DedupUntil != 0 {
				k += " id until " + relative(t.DedupUntil, s.now)
			}
		}
		if r.NotBefore != 0 {
			k += " not_before=" + relative(r.NotBefore, s.now)
		}
		return fmt.Sprintf("%s size=%d", k, r.BodySize)
	case kindAcked:
		return fmt.Sprintf("%s %d-%d", k, r.Queue, r.Seqs)
	case kindRemoved:
		return fmt.Sprintf("%s %d-%d %s", k, r.Queue, r.Seqs, r.Reason)
	case kindFailed:
		return fmt.Sprintf("%s %d-%d attempts=%d not_before=%s %q", k, r.Queue, r.Seqs[0], r.Attempts, relative(r.NotBefore, s.now), r.Detail)
	case kindReturned:
		return fmt.Sprintf("%s %d-%d attempts=%d not_before=%s", k, r.Queue, r.Seqs[0], r.Attempts, relative(r.NotBefore, s.now))
	case kindTransferred:
		return fmt.Sprintf("%s %d-%d to %d-%d %s attempts=%d %q", k, r.Queue, r.Seqs[0], r.ToQueue, r.ToSeq, r.Reason, r.Attempts, r.Detail)
	case kindCoalesced:
		if k = fmt.Sprintf("%s %d-%d into %d-%d", k, r.Queue, r.Seqs, r.ToQueue, r.ToSeq); r.DedupUntil != 0 {
			k += " id until " + relative(r.DedupUntil, s.now)
		}
		return k
	case kindPurged:
		return fmt.Sprintf("%s %d below %d but %d", k, r.Queue, r.Below, r.Seqs)
	case kindQueueSet:
		return fmt.Sprintf("%s %d %s", k, r.Queue, r.Name)
	case kindQueueGone:
		return fmt.Sprintf("%s %d", k, r.Queue)
	case kindConfirmed:
		return fmt.Sprintf("%s %s %d+%d at %d-%d", k, r.Name, r.First, r.Count, r.Queue, r.ToSeq)
	case kindMetaSet:
		return fmt.Sprintf("%s %s/%s %q", k, r.Namespace, r.Name, r.Value)
	}
	return fmt.Sprintf("%s %d", k, r.Epoch)
}
