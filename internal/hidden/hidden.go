// Package hidden lets an exported struct carry a value for this module alone. Programs outside the
// module can copy the struct, but they can neither read nor set the value.
//
// The struct embeds a Field or a Bytes under an unexported alias:
//
//	type opaque = hidden.Bytes
//
//	type Message struct {
//		Body []byte
//		opaque
//	}
//
// Of and BytesOf return the value's address. A struct can have one field of each kind.
package hidden

// Field stores a hidden value.
type Field[T any] struct{ value T }

func (f *Field[T]) field() *Field[T] { return f }

// Carrier is a pointer to a struct with a Field.
type Carrier[T any] interface{ field() *Field[T] }

// Of returns the address of the value that c carries.
func Of[T any](c Carrier[T]) *T { return &c.field().value }

// Bytes stores hidden bytes. Unlike Field it has no type parameter, so that BytesOf costs no more
// than reading a field, and its argument can stay on the stack.
type Bytes struct{ b []byte }

func (b *Bytes) bytes() *Bytes { return b }

// BytesOf returns the address of the bytes that c carries. c is a pointer to a struct with a Bytes.
func BytesOf(c interface{ bytes() *Bytes }) *[]byte { return &c.bytes().b }
