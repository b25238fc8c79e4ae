package formats

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/hidden"
)

// show writes a value as text. It leaves out zero fields, so a field that is added later changes no
// golden text.
func show(v any) string {
	var b strings.Builder
	showValue(&b, reflect.ValueOf(v))
	return b.String()
}

var hiddenPath = reflect.TypeFor[hidden.Bytes]().PkgPath()

// showHidden writes the value of an unexported field, which is bytes or a number.
func showHidden(b *strings.Builder, name string, v reflect.Value) {
	b.WriteString(strings.ToUpper(name[:1]) + name[1:] + ":")
	if v.Kind() == reflect.Slice {
		fmt.Fprintf(b, "%q", v.Bytes())
		return
	}
	fmt.Fprint(b, v.Uint())
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
		fmt.Fprintf(b, "error(%s)", surgetank.CodeOf(x)) // only the code, because the text of an error can change
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
			if v.Field(i).IsZero() || !f.IsExported() && f.Type.PkgPath() != hiddenPath {
				continue
			}
			b.WriteString(sep)
			if !f.IsExported() { // opaque and floor were exported fields once, and are shown as such
				showHidden(b, f.Name, v.Field(i).Field(0))
				sep = " "
				continue
			}
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
