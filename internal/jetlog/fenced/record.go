package fenced

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A record is a header and the data of a blob:
//
//	 0  magic "SGL1"
//	 4  kind: B, F or S
//	 5  flags: 1 the first blob of an entry, 2 the last one
//	 6  zero
//	 8  owner's id
//	24  epoch
//	32  number in the epoch
//	40  length of the entry
//	44  checksum over the log's name, this header without the checksum, and the data
//	48  data
const (
	recordMagic = "SGL1"
	headerSize  = 48
	sumAt       = 44
)

// Overhead is the size of a record without its data.
const Overhead = headerSize

// Kind is the kind of a record.
type Kind byte

// The kinds of records.
const (
	Blob     Kind = 'B' // an entry, or a part of one
	Fence    Kind = 'F' // the beginning of an epoch
	Snapshot Kind = 'S' // a snapshot is durable; numbered like a blob
)

const (
	flagFirst = 1
	flagLast  = 2
)

// Owner identifies one opening of a log. It never repeats.
type Owner [16]byte

// String returns the first digits of the id, which are enough to tell owners apart.
func (o Owner) String() string { return fmt.Sprintf("%x", o[:6]) }

// Header is the decoded header of a record.
type Header struct {
	Kind        Kind
	First, Last bool
	Owner       Owner
	Epoch, N    uint64 // 0 in an F record, whose position is the epoch
	Total       uint32 // the entry's length
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// nameSum returns the checksum of a log's name. All checksums continue it, so that the records of
// one log are damaged in another one.
func nameSum(name string) uint32 { return crc32.Checksum([]byte(name), castagnoli) }

// appendRecord appends a record to buf.
func appendRecord(buf []byte, name uint32, h Header, data []byte) []byte {
	var b [headerSize]byte
	copy(b[:], recordMagic)
	b[4] = byte(h.Kind)
	if h.First {
		b[5] |= flagFirst
	}
	if h.Last {
		b[5] |= flagLast
	}
	copy(b[8:], h.Owner[:])
	le := binary.LittleEndian
	le.PutUint64(b[24:], h.Epoch)
	le.PutUint64(b[32:], h.N)
	le.PutUint32(b[40:], h.Total)
	le.PutUint32(b[sumAt:], recordSum(name, b[:sumAt], data))
	return append(append(buf, b[:]...), data...)
}

func recordSum(name uint32, head, data []byte) uint32 {
	return crc32.Update(crc32.Update(name, castagnoli, head), castagnoli, data)
}

// decode checks a record and returns its header and data. The data is a part of b.
func decode(name uint32, b []byte) (h Header, data []byte, err error) {
	if len(b) < headerSize || string(b[:4]) != recordMagic {
		return h, nil, fmt.Errorf("its %d bytes do not begin like a record of Surgetank", len(b))
	}
	le := binary.LittleEndian
	if recordSum(name, b[:sumAt], b[headerSize:]) != le.Uint32(b[sumAt:]) {
		return h, nil, fmt.Errorf("its checksum is wrong")
	}
	h = Header{Kind: Kind(b[4]), First: b[5]&flagFirst != 0, Last: b[5]&flagLast != 0, Owner: Owner(b[8:24]),
		Epoch: le.Uint64(b[24:]), N: le.Uint64(b[32:]), Total: le.Uint32(b[40:])}
	if h.Kind != Blob && h.Kind != Fence && h.Kind != Snapshot {
		return h, nil, fmt.Errorf("its kind %q is unknown; a newer version of Surgetank may have written it", b[4])
	}
	return h, b[headerSize:], nil
}
