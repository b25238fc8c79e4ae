// Package jsonpath finds values in a JSON body without decoding it.
//
// A path names one position: "$" is the whole body, "$.customer.id" a field, "$.items[0].sku" an
// element's field, `$["odd name"]` a field whose name is not a plain word. Parse returns an error
// for wildcards, slices, filters and "..", because a path must find at most one value.
//
// A Set contains many paths and finds all their values in one pass over the body. The pass checks
// that the whole body is JSON (RFC 8259) in UTF-8, so it finds no values in other texts. It
// allocates no memory, because a Value is a part of the body.
//
// Where RFC 8259 allows several answers, this package agrees with encoding/json: of fields with the
// same name, the last one is used, with all of its content. Two rules are stricter: invalid UTF-8
// is an error, and nesting is limited to MaxDepth. The fuzz test allows only these two differences.
//
// The queue's group_by and the sinks' columns both use the package, so it is below both.
package jsonpath
