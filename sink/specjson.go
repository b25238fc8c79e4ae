package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
)

// ParseSpec reads a sink's settings from JSON, with the keys of the configuration file. It rejects
// unknown and repeated keys. The Field of an error is the path of the wrong key, such as
// "postgres.on_conflict.do". Columns keep their order. The result has its defaults and is valid.
func ParseSpec(data []byte) (Spec, error) {
	if len(data) > MaxSpecBytes {
		return Spec{}, surgetank.Errorf(surgetank.CodeTooLarge, "the sink's settings have %d bytes; at most %d are allowed", len(data), MaxSpecBytes)
	}
	var s Spec
	err := eachField("", data, func(path, key string, v json.RawMessage) error {
		switch key {
		case "queue":
			return text(path, v, &s.Queue)
		case "lanes":
			return number(path, v, &s.Lanes)
		case "brake":
			return s.brake(path, v)
		case "batch":
			return eachField(path, v, s.Batch.field)
		case "webhook":
			return surgetank.FieldErrorf(path, "a webhook sink is not available yet; use postgres or sqlite")
		case "postgres", "sqlite":
			if s.Kind != "" {
				return surgetank.FieldErrorf(path, "a sink has one target; %s is given already", s.Kind)
			}
			s.Kind = key
			return eachField(path, v, s.targetField)
		}
		return unknown(path, "queue, postgres, sqlite, batch, lanes, brake")
	})
	if err != nil {
		return Spec{}, err
	}
	s = s.WithDefaults()
	return s, s.Validate()
}

// brake reads a number or "off"; YAML reads off as false.
func (s *Spec) brake(path string, v json.RawMessage) error {
	switch string(v) {
	case `"off"`, "false", "0":
		s.Brake = BrakeOff
		return nil
	}
	if err := number(path, v, &s.Brake); err != nil {
		return surgetank.FieldErrorf(path, "%s must be a number of messages or off, not %.40s", path, v)
	}
	if s.Brake < 1 {
		return surgetank.FieldErrorf(path, "%s must be off or between 1 and %d messages, not %.40s", path, MaxBrake, v)
	}
	return nil
}

func (b *BatchSpec) field(path, key string, v json.RawMessage) error {
	switch key {
	case "max":
		return number(path, v, &b.Max)
	case "wait":
		var t string
		if err := text(path, v, &t); err != nil {
			return err
		}
		d, err := time.ParseDuration(t)
		if err != nil {
			return surgetank.FieldErrorf(path, "%s: %.40q is not a duration; write \"20ms\" or \"1.5s\"", path, t)
		}
		b.Wait = d
		return nil
	}
	return unknown(path, "max, wait")
}

func (s *Spec) targetField(path, key string, v json.RawMessage) error {
	t := &s.Table
	address := kinds[s.Kind].address
	switch key {
	case address:
		return text(path, v, &s.Address)
	case "table":
		return text(path, v, &t.Table)
	case "create_table":
		if err := json.Unmarshal(v, &t.Create); err != nil {
			return surgetank.FieldErrorf(path, "%s must be true or false", path)
		}
		return nil
	case "columns":
		return eachField(path, v, t.column)
	case "on_conflict":
		t.OnConflict = &OnConflict{}
		do := ""
		if err := eachField(path, v, func(path, key string, v json.RawMessage) error {
			switch key {
			case "keys":
				if err := json.Unmarshal(v, &t.OnConflict.Keys); err != nil {
					return surgetank.FieldErrorf(path, "%s must be a list of column names", path)
				}
				return nil
			case "do":
				return text(path, v, &do)
			case "add":
				if err := json.Unmarshal(v, &t.OnConflict.Add); err != nil {
					return surgetank.FieldErrorf(path, "%s must be a list of column names", path)
				}
				return nil
			}
			return unknown(path, "keys, do, add")
		}); err != nil {
			return err
		}
		switch do {
		case "update", "add":
			t.OnConflict.Update = true
		case "nothing":
		default:
			return surgetank.FieldErrorf(path+".do", "%s.do must be update, add or nothing, not %.40q", path, do)
		}
		switch {
		case do == "add" && len(t.OnConflict.Add) == 0:
			return surgetank.FieldErrorf(path+".add", "%s.add is empty; name the columns whose values are added", path)
		case do != "add" && t.OnConflict.Add != nil:
			return surgetank.FieldErrorf(path+".add", "%s.add needs do: add", path)
		}
		return nil
	}
	return unknown(path, address+", table, columns, on_conflict, create_table")
}

// column reads one column: a source, or a source and a type. A wrong source is reported for the
// whole column.
func (t *TableSpec) column(path, name string, v json.RawMessage) error {
	c := Column{Name: name}
	source := func(path string, v json.RawMessage) error {
		var from string
		err := text(path, v, &from)
		if err != nil {
			return err
		}
		if c.From, err = ParseSource(from); err != nil {
			return surgetank.FieldErrorf(path, "%s: %s", path, err)
		}
		return nil
	}
	var err error
	switch {
	case len(v) > 0 && v[0] == '{':
		err = eachField(path, v, func(at, key string, v json.RawMessage) error {
			switch key {
			case "from":
				return source(path, v)
			case "type":
				return text(at, v, &c.Type)
			}
			return unknown(at, "from, type")
		})
		if err == nil && c.From.kind == 0 {
			err = surgetank.FieldErrorf(path, "%s.from is missing; say where the column's value comes from", path)
		}
	case len(v) > 0 && v[0] == '"':
		err = source(path, v)
	default:
		err = surgetank.FieldErrorf(path, "%s must be a text, or an object with from and type", path)
	}
	t.Columns = append(t.Columns, c)
	return err
}

// eachField calls f for every field of a JSON object, in order, with the path of the field.
func eachField(path string, data []byte, f func(path, key string, v json.RawMessage) error) error {
	what := path
	if path == "" {
		what = "the sink's settings"
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	open, err := dec.Token()
	if err != nil || open != json.Delim('{') {
		return surgetank.FieldErrorf(path, "%s must be an object%s", what, words(err))
	}
	var seen []string
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return surgetank.FieldErrorf(path, "%s is not JSON%s", what, words(err))
		}
		key := name.(string) // the decoder returns only strings here
		child := strings.TrimPrefix(path+"."+key, ".")
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return surgetank.FieldErrorf(child, "%s is not JSON%s", child, words(err))
		}
		if slices.Contains(seen, key) {
			return surgetank.FieldErrorf(child, "%s is given twice", child)
		}
		seen = append(seen, key)
		if err := f(child, key, v); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return surgetank.FieldErrorf(path, "%s is not JSON%s", what, words(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return surgetank.FieldErrorf(path, "something follows the end of %s", what)
	}
	return nil
}

func words(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

func unknown(path, known string) error {
	return surgetank.FieldErrorf(path, "%.100q is not a setting; known here are %s", path, known)
}

func text(path string, v json.RawMessage, out *string) error {
	if len(v) == 0 || v[0] != '"' || json.Unmarshal(v, out) != nil {
		return surgetank.FieldErrorf(path, "%s must be a text", path)
	}
	return nil
}

func number(path string, v json.RawMessage, out *int) error {
	n, err := strconv.Atoi(string(v))
	if err != nil {
		return surgetank.FieldErrorf(path, "%s must be a whole number, not %.40s", path, v)
	}
	*out = n
	return nil
}

// Encode writes the settings in the form that ParseSpec reads. The address contains its password.
func (s Spec) Encode() []byte {
	var columns bytes.Buffer
	for i, c := range s.Table.Columns {
		if i > 0 {
			columns.WriteByte(',')
		}
		columns.Write(quoted(c.Name))
		columns.WriteByte(':')
		if c.Type == "" {
			columns.Write(quoted(c.From.String()))
			continue
		}
		fmt.Fprintf(&columns, `{"from":%s,"type":%s}`, quoted(c.From.String()), quoted(c.Type))
	}
	target := fmt.Appendf(nil, `{%s:%s,"table":%s,"columns":{%s}`,
		quoted(kinds[s.Kind].address), quoted(s.Address), quoted(s.Table.Table), columns.Bytes())
	if oc := s.Table.OnConflict; oc != nil {
		keys, _ := json.Marshal(oc.Keys) // a list of strings always encodes
		do := "nothing"
		if oc.Update {
			do = "update"
		}
		add := ""
		if oc.Add != nil {
			list, _ := json.Marshal(oc.Add)
			do, add = "add", `,"add":`+string(list)
		}
		target = fmt.Appendf(target, `,"on_conflict":{"keys":%s,"do":"%s"%s}`, keys, do, add)
	}
	if s.Table.Create {
		target = append(target, `,"create_table":true`...)
	}
	target = append(target, '}')
	brake := `"off"`
	if s.Brake != BrakeOff {
		brake = strconv.Itoa(s.Brake)
	}
	return fmt.Appendf(nil, `{"queue":%s,"%s":%s,"batch":{"max":%d,"wait":"%s"},"lanes":%d,"brake":%s}`,
		quoted(s.Queue), s.Kind, target, s.Batch.Max, s.Batch.Wait, s.Lanes, brake)
}

func quoted(s string) []byte {
	b, _ := json.Marshal(s) // a string always encodes
	return b
}
