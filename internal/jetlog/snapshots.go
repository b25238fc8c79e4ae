package jetlog

import (
	"context"
	"errors"
	"strings"

	"github.com/surgetank/surgetank/internal/jetlog/fenced"
)

// putTries is how often a piece of a snapshot is sent until NATS confirms it. Together the tries
// last longer than the election of a leader.
const putTries = 8

// PutSnapshot stores a piece of a snapshot. A piece that was stored twice replaces itself.
func (s *Stream) PutSnapshot(ctx context.Context, name string, data []byte) (err error) {
	for range putTries {
		if err = s.put(ctx, name, data); err == nil || ctx.Err() != nil {
			return err
		}
		if f := (*fenced.FinalError)(nil); errors.As(err, &f) {
			return err
		}
		s.Wait(ctx, timeout/4)
	}
	return err
}

func (s *Stream) put(ctx context.Context, name string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	m, err := s.nc.RequestWithContext(ctx, snapPrefix(s.id)+name, data)
	if err != nil {
		return err
	}
	_, err = readAppended(m)
	return err
}

// GetSnapshot reads a piece of a snapshot, from the leader first.
func (s *Stream) GetSnapshot(ctx context.Context, source int, name string) ([]byte, error) {
	subject := snapPrefix(s.id) + name
	if source == 0 {
		return s.fromLeader(ctx, snapStream(s.id), map[string]any{"last_by_subj": subject})
	}
	nc, err := s.conn(source)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	m, err := nc.RequestWithContext(ctx, "$JS.API.DIRECT.GET."+snapStream(s.id)+"."+subject, nil)
	if err != nil {
		return nil, err
	}
	if m.Header.Get("Status") == "404" {
		return nil, fenced.ErrMissing
	}
	return m.Data, statusError(m)
}

// SnapshotNames asks the leader for the names of all pieces.
func (s *Stream) SnapshotNames(ctx context.Context) (names []string, err error) {
	for {
		var r struct {
			Error *apiError `json:"error"`
			Total int       `json:"total"`
			State struct {
				Subjects map[string]uint64 `json:"subjects"`
			} `json:"state"`
		}
		request := map[string]any{"subjects_filter": snapPrefix(s.id) + ">", "offset": len(names)}
		if err := s.ask(ctx, "STREAM.INFO."+snapStream(s.id), request, &r); err != nil {
			return nil, err
		}
		if r.Error != nil {
			return nil, r.Error.asStream()
		}
		for subject := range r.State.Subjects { // unordered: the caller sorts
			names = append(names, strings.TrimPrefix(subject, snapPrefix(s.id)))
		}
		if len(r.State.Subjects) == 0 || len(names) >= r.Total {
			return names, nil
		}
	}
}

// DropSnapshot removes pieces.
func (s *Stream) DropSnapshot(ctx context.Context, name string) error {
	for _, filter := range []string{name, name + ".>"} {
		if err := s.purge(ctx, snapStream(s.id), map[string]any{"filter": snapPrefix(s.id) + filter}); err != nil {
			return err
		}
	}
	return nil
}
