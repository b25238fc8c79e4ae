package disklog

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
	"github.com/surgetank/surgetank/test/hostile/fuzzing"
)

// fuzzSegment is the id of the fuzzed segment.
var fuzzSegment = id{1, 2, 3}

// mend corrects the checksum of every frame and footer in a segment's body, so that the fuzzer
// reaches the code after the checks.
func mend(body []byte) {
	seal := newSealer(fuzzSegment)
	for i := 0; i+frameHeader <= len(body); i += alignment {
		b, pos := body[i:], int64(dataStart+i)
		switch le.Uint32(b) {
		case frameEntry, frameMark, frameLost:
		default:
			continue
		}
		if n := int(le.Uint32(b[4:])); n <= len(b)-frameHeader {
			le.PutUint32(b[24:], crc32.Update(seal.entryBase(pos, le.Uint64(b[8:])), castagnoli, b[frameHeader:frameHeader+n]))
		}
		le.PutUint32(b[28:], seal.headerSum(pos, b))
	}
	size := int64(dataStart + len(body))
	if len(body) < footerSize {
		return
	}
	t := body[len(body)-footerSize:]
	if string(t[:8]) != footerMagic {
		return
	}
	if n := indexSize(int(uint32(le.Uint64(t[24:])))) - footerSize; n <= int64(len(body)-footerSize) {
		index := body[int64(len(body)-footerSize)-n : len(body)-footerSize]
		le.PutUint32(t[40:], crc32.Update(uint32(seal), castagnoli, index))
	}
	le.PutUint32(t[12:], seal.footerSum(t, size))
}

// fuzzBodies returns the bodies of real segments, as seeds.
func fuzzBodies(f *testing.F) [][]byte {
	var bodies [][]byte
	w := &world{rng: rand.New(rand.NewPCG(1, 1)), entries: map[uint64][]byte{}, next: 1}
	for _, n := range []int{0, 1, 5} {
		seal := newSealer(fuzzSegment)
		body := make([]byte, 2048)
		pos, synced := int64(dataStart), int64(dataStart)
		var index []uint32
		for i := range n {
			data := bytes.Repeat([]byte{byte(i)}, w.rng.IntN(100))
			seal.put(body[pos-dataStart:], frameEntry, pos, uint64(i+1), synced, data)
			copy(body[pos-dataStart+frameHeader:], data)
			index = append(index, uint32(pos/alignment))
			synced, pos = pos, pos+frameSize(len(data))
		}
		marked := bytes.Clone(body)
		seal.put(marked[pos-dataStart:], frameMark, pos, uint64(n+1), pos, nil)
		size := int64(dataStart + len(body))
		footer := seal.encodeIndex(fuzzSegment, footer{first: 1, count: n, end: pos}, index, size)
		sealed := bytes.Clone(body)
		copy(sealed[len(sealed)-len(footer):], footer)
		bodies = append(bodies, body, marked, sealed)
	}
	return bodies
}

// FuzzSegment opens a log whose last segment has an arbitrary body. No code may panic, use much
// memory or run for ever. A log that opens must be readable and verifiable, and must open again
// with the same entries.
func FuzzSegment(f *testing.F) {
	for _, body := range fuzzBodies(f) {
		f.Add(body, false)
		f.Add(body, true)
	}
	f.Fuzz(func(t *testing.T, body []byte, right bool) {
		fuzzing.Bounded(t, len(body), 2048, func() {
			if len(body) > 1<<16 {
				return
			}
			if right {
				body = bytes.Clone(body)
				mend(body)
			}
			disk := vfs.NewMem()
			h := segmentHeader{log: id{9}, id: fuzzSegment, number: 1, size: int64(dataStart + len(body)), born: dataStart}
			for name, b := range map[string][]byte{
				segmentName(1): append(h.encode(), body...),
				stateName:      append((&state{log: id{9}, generation: 1, oldest: 1, first: 1}).encode(), make([]byte, stateSlot)...),
			} {
				file, err := disk.Open(filepath.Join("/", name), vfs.Create)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := file.WriteAt(b, 0); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := Verify(disk, "/", nil); err != nil {
				t.Fatalf("verify: %v", err)
			}
			o := Options{FS: disk, Dir: "/", SegmentBytes: MinSegmentBytes, CacheBytes: -1}
			_, all, l, err := contents(o)
			if err != nil {
				if !errors.Is(err, commitlog.ErrCorrupt) {
					t.Fatalf("opening gave %v, want ErrCorrupt or success", err)
				}
				return
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			_, again, l, err := contents(o)
			if err != nil {
				t.Fatalf("opening a second time: %v", err)
			}
			if len(all) != len(again) {
				t.Fatalf("%d entries, then %d", len(all), len(again))
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		})
	})
}

// FuzzSnapshot reads an arbitrary snapshot file.
func FuzzSnapshot(f *testing.F) {
	disk := vfs.NewMem()
	s, err := OpenSnapshots(disk, "/")
	if err != nil {
		f.Fatal(err)
	}
	for i, size := range []int{0, 10, 3000} {
		at := commitlog.Offset(i + 1)
		if err := save(s, at, size); err != nil {
			f.Fatal(err)
		}
		file, err := disk.Open("/"+snapName(at), vfs.Read)
		if err != nil {
			f.Fatal(err)
		}
		n, err := file.Size()
		if err != nil {
			f.Fatal(err)
		}
		b := make([]byte, n)
		if _, err := file.ReadAt(b, 0); err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzing.Bounded(t, len(b), 2048, func() {
			disk := vfs.NewMem()
			file, err := disk.Open("/s", vfs.Create)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) >= snapHeader {
				b = bytes.Clone(b)
				le.PutUint64(b[32:], 1)
				le.PutUint32(b[12:], blockSum(b[:snapHeader]))
			}
			if _, err := file.WriteAt(b, 0); err != nil {
				t.Fatal(err)
			}
			r, err := newSnapReader(file, "/s", 1)
			if err == nil {
				var n int64
				n, err = io.Copy(io.Discard, r)
				if n > int64(len(b)) {
					t.Fatalf("%d bytes came out of %d", n, len(b))
				}
			}
			if err != nil && !errors.Is(err, commitlog.ErrCorrupt) {
				t.Fatalf("reading gave %v, want ErrCorrupt or success", err)
			}
		})
	})
}
