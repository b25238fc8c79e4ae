package sink

import (
	"testing"

	"github.com/surgetank/surgetank/internal/jsonpath"
)

// The public kinds of JSON values are those of the parser.
func TestJSONKinds(t *testing.T) {
	for public, own := range map[JSONKind]jsonpath.Kind{JSONFalse: jsonpath.False, JSONTrue: jsonpath.True, JSONNumber: jsonpath.Number,
		JSONString: jsonpath.String, JSONArray: jsonpath.Array, JSONObject: jsonpath.Object} {
		if got := (JSON{jsonpath.Value{Kind: own}}).Kind(); got != public {
			t.Errorf("%v has the kind %d, want %d", own, got, public)
		}
	}
}
