package sink

import (
	"context"
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// WrittenNamespace is the namespace of marks in the broker's metadata. Each lane has one value.
const WrittenNamespace = "sink.written"

// mark is one lane's progress in the target as the data directory knows it. It is stored after the
// target's commit and before the acks of the batch. So no message is acked before the directory
// knows that the target has it.
type mark struct {
	epoch   uint64
	applied uint64 // number of messages of this lane in this epoch; in an opening's mark: of all earlier epochs
	last    uint64 // the highest message number of the newest batch
	time    int64  // time of the commit, in seconds since 1970
}

func (m mark) encode() []byte {
	b := make([]byte, 0, 32)
	b = append(b, 1)
	for _, n := range [...]uint64{m.epoch, m.applied, m.last, uint64(m.time)} {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func decodeMark(b []byte) (m mark, ok bool) {
	if len(b) == 0 || b[0] != 1 {
		return m, false
	}
	b = b[1:]
	var n [4]uint64
	for i := range n {
		v, size := binary.Uvarint(b)
		if size <= 0 {
			return m, false
		}
		n[i], b = v, b[size:]
	}
	return mark{n[0], n[1], n[2], int64(n[3])}, len(b) == 0
}

// markName returns the name of a lane's mark. Lane -1 means the mark of the opening.
func markName(instance string, lane int) string { return instance + "/" + strconv.Itoa(lane) }

// readWritten combines the data directory's marks of an instance.
func readWritten(ctx context.Context, b door.Broker, instance string) (w Written, err error) {
	state, err := b.Meta(ctx, WrittenNamespace)
	if err != nil && !door.IsPartial(err) {
		return w, err
	}
	var marks []mark
	for name, v := range state.Bytes() {
		if !strings.HasPrefix(name, instance+"/") {
			continue
		}
		m, ok := decodeMark(v)
		if !ok {
			return w, surgetank.Errorf(surgetank.CodeCorrupt,
				"the stored value %s/%s of a sink cannot be read; run the version of Surgetank that wrote it, or restore a backup", WrittenNamespace, name)
		}
		marks = append(marks, m)
		w.Epoch = max(w.Epoch, m.epoch)
	}
	if err != nil && len(marks) == 0 {
		return w, err // they can be in the shard that is not open
	}
	for _, m := range marks {
		w.Last = max(w.Last, m.last)
		if t := time.Unix(m.time, 0); m.time > 0 && t.After(w.Time) {
			w.Time = t
		}
		if m.epoch == w.Epoch {
			w.Applied += m.applied
		}
	}
	return w, nil
}

// forgetWritten removes the marks of an instance when its sink is deleted.
func forgetWritten(ctx context.Context, b door.Broker, instance string) error {
	state, err := b.Meta(ctx, WrittenNamespace)
	if err != nil {
		return err
	}
	for name := range state.Bytes() {
		if strings.HasPrefix(name, instance+"/") {
			if err := b.SetMeta(ctx, WrittenNamespace, name, nil); err != nil {
				return err
			}
		}
	}
	return nil
}
