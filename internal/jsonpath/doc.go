// Package jsonpath finds values in a JSON body without decoding it.
//
// A path names one place: "$" is the whole body, "$.customer.id" a field, "$.items[0].sku" an
// element's field, `$["odd name"]` a field whose name is not a plain word. Wildcards, slices,
// filters and ".." are refused by Parse, because a path must give at most one value.
//
// A Set holds many paths and answers all of them in one pass over the body. The pass checks the
// whole body against RFC 8259 (and that it is UTF-8), so that a value is never taken out of
// something that is not JSON. It allocates nothing: a Value is a piece of the body.
//
// Where RFC 8259 leaves room, the answer is that of encoding/json: of fields with the same name the
// last one counts, the whole of it. Two rules are stricter, and the fuzz test allows for exactly
// these: invalid UTF-8 is an error, and nesting is limited to MaxDepth.
//
// The package stands on the ground floor: the queue's group_by and the sinks' columns both use it.
package jsonpath
