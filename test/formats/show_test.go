package formats

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
)

// show writes a value as text. It leaves out zero fields, so a field that is added later changes no
// golden text.
func show(v any) string {
	var b strings.Builder
	showValue(&b, reflect.ValueOf(v))
	return b.String()
}

func showValue(b *strings.Builder, v reflect.Value) {
	if !v.IsValid() {
		b.WriteString("nothing")
		return
	}
	switch x := v.Interface().(type) {
	case time.Time:
		b.WriteString(x.UTC().Format(time.RFC3339Nano))
		return
	case json.RawMessage:
		b.Write(x)
		return
	case []byte:
		fmt.Fprintf(b, "%q", x)
		return
	case error:
		fmt.Fprintf(b, "error(%s)", surgetank.CodeOf(x)) // the text may change
		return
	case fmt.Stringer:
		b.WriteString(x.String())
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		showValue(b, v.Elem())
	case reflect.Struct:
		b.WriteByte('{')
		sep := ""
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if !f.IsExported() || v.Field(i).IsZero() {
				continue
			}
			b.WriteString(sep)
			if !f.Anonymous {
				b.WriteString(f.Name + ":")
			}
			showValue(b, v.Field(i))
			sep = " "
		}
		b.WriteByte('}')
	case reflect.Slice, reflect.Array:
		b.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				b.WriteString(", ")
			}
			showValue(b, v.Index(i))
		}
		b.WriteByte(']')
	case reflect.String:
		fmt.Fprintf(b, "%q", v.String())
	default:
		fmt.Fprint(b, v.Interface())
	}
}
