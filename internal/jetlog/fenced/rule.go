package fenced

// rule decides which records are valid. The zero value is the state before the first record.
type rule struct {
	epoch uint64 // position of the newest F record; 0: there was none
	n     uint64 // number of the newest valid blob in the epoch
}

// verdict is what a record means.
type verdict int

const (
	void   verdict = iota // a fenced owner wrote it, or a blob before it is missing
	valid                 // the next blob of the present epoch
	begins                // an F record
)

// admit decides about the record at a position and changes the state. Records come in the order of
// their positions. A position is passed only once.
func (r *rule) admit(at uint64, h Header) verdict {
	switch {
	case h.Kind == Fence:
		r.epoch, r.n = at, 0
		return begins
	case h.Epoch == r.epoch && h.N == r.n+1 && r.epoch != 0:
		r.n++
		return valid
	}
	return void
}

// joiner joins the blobs of entries.
type joiner struct {
	at    uint64 // position of the first blob; 0: no entry has begun
	parts []byte
	total int
}

// add adds a record. It returns an entry when its last blob was added. Blobs whose beginning was
// not added are ignored, because their entry is before the start of the replay.
func (j *joiner) add(at uint64, v verdict, h Header, data []byte) (first uint64, entry []byte, ok bool) {
	switch {
	case v == begins:
		*j = joiner{} // the owner sends an unfinished entry again, from its beginning
		return 0, nil, false
	case v == void || h.Kind != Blob:
		return 0, nil, false
	case h.First && h.Last:
		*j = joiner{}
		return at, data, true
	case h.First:
		*j = joiner{at: at, total: int(h.Total), parts: make([]byte, 0, h.Total)}
	case j.at == 0:
		return 0, nil, false
	}
	j.parts = append(j.parts, data...)
	if !h.Last {
		return 0, nil, false
	}
	first, entry = j.at, j.parts
	*j = joiner{}
	return first, entry, true
}
