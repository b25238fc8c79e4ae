package formats

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/dataformat"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/settings"
	"github.com/surgetank/surgetank/internal/vfs"
)

// known is everything that internal/queue can write, according to its source.
type known struct {
	records, frames map[queue.Kind]string // the constants' names, by value
	flags           []string              // names of a message's flags, from the lowest bit
}

// firstFrame is the lowest kind that only snapshots contain.
const firstFrame queue.Kind = 32

// readKnown reads the constants of type Kind, and the constants whose names begin with "flag".
func readKnown(t *testing.T) known {
	t.Helper()
	k := known{records: map[queue.Kind]string{}, frames: map[queue.Kind]string{}}
	files, err := filepath.Glob("../../internal/queue/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Names) != 1 {
				return true
			}
			name := spec.Names[0].Name
			if strings.HasPrefix(name, "flag") && name != "flagsKnown" {
				k.flags = append(k.flags, name)
			}
			if typ, ok := spec.Type.(*ast.Ident); ok && typ.Name == "Kind" && len(spec.Values) == 1 {
				value, ok := spec.Values[0].(*ast.BasicLit)
				if !ok {
					t.Fatalf("the kind %s is not given as a number", name)
				}
				n, err := strconv.ParseUint(value.Value, 10, 8)
				if err != nil {
					t.Fatal(err)
				}
				if kind := queue.Kind(n); kind >= firstFrame {
					k.frames[kind] = name
				} else {
					k.records[kind] = name
				}
			}
			return true
		})
	}
	k.frames[10] = k.records[10] // metadata is a record and a frame
	if len(k.records) < 15 || len(k.frames) < 13 || len(k.flags) < 10 {
		t.Fatalf("the source of internal/queue is read wrongly: %v", k)
	}
	return k
}

// TestNewestIsComplete: the newest golden directory has every kind of record after its older
// snapshot, every frame in its newest snapshot, and every flag of a message.
func TestNewestIsComplete(t *testing.T) {
	k := readKnown(t)
	dir := unpack(t, golden(dataformat.Written().Number)+".tar.gz")
	snapshots, err := filepath.Glob(filepath.Join(dir, "*.snap"))
	if err != nil || len(snapshots) != 2 {
		t.Fatalf("the directory has the snapshots %q, want two; %v", snapshots, err)
	}
	records, flags := map[queue.Kind]bool{}, uint16(0)
	entries(t, dir, func(e disklog.EntryInfo) error {
		if e.Lost || fmt.Sprintf("%020d.snap", e.Offset) <= filepath.Base(snapshots[0]) {
			return nil
		}
		_, at, err := queue.ParseHeader(e.Data)
		if err != nil {
			return err
		}
		records[0] = records[0] || e.Data[at] == 0 // an entry can begin with a filling record
		return queue.Records(e.Data, func(_ queue.EntryHeader, r *queue.Record) error {
			records[r.Kind] = true
			if name := k.records[r.Kind]; name == "kindEnqueued" || name == "kindMoved" {
				flags |= binary.LittleEndian.Uint16(e.Data[r.Ref.Position()+1:])
			}
			return nil
		})
	})
	const howto = "write it in write_test.go and run go test ./test/formats -write, after the steps in docs/format.md"
	for kind, name := range k.records {
		if !records[kind] {
			t.Errorf("the newest golden directory has no record %s (%d); %s", name, kind, howto)
		}
	}
	for bit, name := range k.flags {
		if flags&(1<<bit) == 0 {
			t.Errorf("the newest golden directory has no message with %s; %s", name, howto)
		}
	}
	frames := readFrames(t, dir)
	for kind, name := range k.frames {
		if !frames[kind] {
			t.Errorf("the newest snapshot of the newest golden directory has no frame %s (%d); %s", name, kind, howto)
		}
	}
}

// readFrames returns the kinds of frames in the newest snapshot.
func readFrames(t *testing.T, dir string) map[queue.Kind]bool {
	t.Helper()
	snaps, err := disklog.OpenSnapshots(vfs.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	_, file, err := snaps.Latest()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	r := bufio.NewReader(file)
	number := func() uint64 {
		n, err := binary.ReadUvarint(r)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for range 2 * number() { // skip the entries of the log, two numbers each
		number()
	}
	frames := map[queue.Kind]bool{}
	for {
		if _, err := r.Peek(1); err == io.EOF {
			return frames
		}
		frame := make([]byte, number())
		if _, err := io.ReadFull(r, frame); err != nil {
			t.Fatal(err)
		}
		frames[queue.Kind(frame[0])] = true
	}
}

// TestNewestHasEverySetting: each setting of a queue and each field of a message differs from its
// default somewhere in the newest golden directory.
func TestNewestHasEverySetting(t *testing.T) {
	missing := map[string]bool{}
	synctest.Test(t, func(t *testing.T) {
		pass(opensAfter)
		b := open(t, unpack(t, golden(dataformat.Written().Number)+".tar.gz"), opening{incarnation: 99})
		infos, err := b.Queues(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var configs, messages []reflect.Value
		for _, i := range infos {
			configs = append(configs, reflect.ValueOf(i.Config))
			ds, err := b.Peek(ctx, i.Name, surgetank.PeekOptions{Max: 1000})
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range ds {
				messages = append(messages, reflect.ValueOf(d.Message))
			}
		}
		unset("QueueConfig", reflect.ValueOf(settings.WithDefaults(surgetank.QueueConfig{})), configs, missing)
		unset("Message", reflect.ValueOf(surgetank.Message{}), messages, missing)
		closeBroker(t, b)
	})
	delete(missing, "QueueConfig.Transient") // a restart deletes a transient queue
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		t.Errorf("nothing in the newest golden directory has a %s that is not the default; set it in write_test.go and run go test ./test/formats -write, after the steps in docs/format.md", name)
	}
}

// unset adds to missing the paths of the fields that have the default in all values.
func unset(path string, def reflect.Value, values []reflect.Value, missing map[string]bool) {
	if def.Kind() == reflect.Struct && def.Type() != reflect.TypeFor[time.Time]() {
		for i := range def.NumField() {
			var inner []reflect.Value
			for _, v := range values {
				inner = append(inner, v.Field(i))
			}
			unset(path+"."+def.Type().Field(i).Name, def.Field(i), inner, missing)
		}
		return
	}
	differs := func(v reflect.Value) bool {
		if !v.CanInterface() { // an unexported field, whose default is zero
			return !v.IsZero()
		}
		return !reflect.DeepEqual(v.Interface(), def.Interface())
	}
	if !slices.ContainsFunc(values, differs) {
		missing[path] = true
	}
}
