//go:build linux

package powerfs

import "maps"

const (
	pageSize   = 4096
	sectorSize = 512
)

type page [pageSize]byte

// content is the bytes of a file: written pages, and zeros elsewhere. Two contents may share pages.
// A page shared with the other content of its file is copied before it is changed.
type content struct {
	size  int64
	pages map[int64]*page
}

func newContent() content { return content{pages: map[int64]*page{}} }

func (c *content) clone() content { return content{c.size, maps.Clone(c.pages)} }

// own returns a page that may be written: a new page if there is none, or a copy if other shares
// the page.
func (c *content) own(i int64, other *content) *page {
	p := c.pages[i]
	switch {
	case p == nil:
		p = new(page)
	case other.pages[i] == p:
		q := *p
		p = &q
	default:
		return p
	}
	c.pages[i] = p
	return p
}

// write writes bytes at an offset and extends the file if needed.
func (c *content) write(b []byte, off int64, other *content) {
	c.size = max(c.size, off+int64(len(b)))
	for len(b) > 0 {
		n := copy(c.own(off/pageSize, other)[off%pageSize:], b)
		b, off = b[n:], off+int64(n)
	}
}

// read fills b from an offset and returns how many bytes there were.
func (c *content) read(b []byte, off int64) int {
	if off >= c.size {
		return 0
	}
	b = b[:min(int64(len(b)), c.size-off)]
	for n := 0; n < len(b); {
		at := off + int64(n)
		in := at % pageSize
		part := b[n:min(int64(len(b)), int64(n)+pageSize-in)]
		if p := c.pages[at/pageSize]; p != nil {
			copy(part, p[in:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return len(b)
}

// resize truncates the file, or extends it with zeros.
func (c *content) resize(size int64, other *content) {
	if size < c.size {
		if in := size % pageSize; in != 0 && c.pages[size/pageSize] != nil {
			clear(c.own(size/pageSize, other)[in:])
		}
		first := (size + pageSize - 1) / pageSize
		maps.DeleteFunc(c.pages, func(i int64, _ *page) bool { return i >= first })
	}
	c.size = size
}
