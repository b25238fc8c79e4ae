package wire

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/surgetank/surgetank/test/hostile/fuzzing"
)

// captured returns bytes that real clients sent. Each file of testdata/captured has one direction
// of a connection.
func captured(f *testing.F) [][]byte {
	names, err := filepath.Glob("testdata/captured/*")
	if err != nil {
		f.Fatal(err)
	}
	var all [][]byte
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// FuzzStream parses any bytes as frames, and then the methods, properties and tables in the frames.
// Written again, the parsed parts must have the same bytes.
func FuzzStream(f *testing.F) {
	for _, m := range everyMethod {
		f.Add(AppendMethod(nil, 1, m))
	}
	all := allProperties()
	f.Add(AppendBody(AppendHeader(nil, 1, 3, all.Append(nil)), 1, []byte("abc"), 4096))
	for _, b := range captured(f) {
		f.Add(bytes.TrimPrefix(b, []byte(ProtocolHeader)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzing.Bounded(t, len(b), 2048, func() {
			for {
				fr, n, err := NextFrame(b, 131072)
				if err != nil || n == 0 {
					return
				}
				if again := AppendFrame(nil, fr.Type, fr.Channel, fr.Payload); !bytes.Equal(again, b[:n]) {
					t.Fatalf("frame % x became % x", b[:n], again)
				}
				switch fr.Type {
				case FrameMethod:
					checkMethod(t, fr)
				case FrameHeader:
					h, err := ParseHeader(fr.Payload)
					if err != nil {
						break
					}
					if p, err := ParseProperties(h.Block); err == nil {
						if again := p.Append(nil); !bytes.Equal(again, h.Block) {
							t.Fatalf("properties % x became % x", h.Block, again)
						}
					}
				}
				b = b[n:]
			}
		})
	})
}

func checkMethod(t *testing.T, fr Frame) {
	m, err := ParseMethod(fr.Payload)
	if err != nil {
		return
	}
	// Reserved fields and unused bits are not kept, so the first writing may differ from the input.
	// A second writing must not differ from the first.
	once := AppendMethod(nil, fr.Channel, m)
	f2, _, err := NextFrame(once, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	m2, err := ParseMethod(f2.Payload)
	if err != nil {
		t.Fatalf("%T cannot be read back: %v", m, err)
	}
	if twice := AppendMethod(nil, fr.Channel, m2); !bytes.Equal(once, twice) {
		t.Fatalf("%T: % x became % x", m, once, twice)
	}
	switch id := m.ID(); id {
	case IDBasicPublish:
		var p Publish
		if err := ParsePublish(fr.Payload, &p); err != nil {
			t.Fatalf("ParseMethod reads it, ParsePublish does not: %v", err)
		}
	case IDBasicAck, IDBasicNack, IDBasicReject:
		if _, err := ParseSettle(id, fr.Payload); err != nil {
			t.Fatalf("ParseMethod reads it, ParseSettle does not: %v", err)
		}
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte(allTags()))
	f.Add([]byte{1, 'k', 'A', 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzing.Bounded(t, len(b), 2048, func() {
			in := Table(b)
			if in.Validate() != nil {
				in.Get("x") // must not panic on invalid tables either
				return
			}
			var out Table
			for name, v := range in.All() {
				out = out.Add(string(name), v)
				v.Int()
				v.TypeName()
			}
			if !bytes.Equal(in, out) {
				t.Fatalf("% x became % x", in, out)
			}
		})
	})
}
