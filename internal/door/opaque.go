package door

import (
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/hidden"
)

// Opaque returns the address of a message's opaque part: the protocol properties that its other
// fields cannot express. The door of that protocol encodes them, and the first byte names the door.
// Other doors pass them on unchanged. A copy of the message has the same opaque part.
func Opaque(m *surgetank.Message) *[]byte { return hidden.BytesOf(m) }
