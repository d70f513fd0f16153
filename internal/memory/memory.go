// Package memory is about content that lies in memory and need not be copied to be read.
package memory

import "bytes"

// Reader reads bytes, and lends them to who knows it.
type Reader struct {
	*bytes.Reader
	all []byte
}

// NewReader returns a reader of b.
func NewReader(b []byte) *Reader { return &Reader{bytes.NewReader(b), b} }

// Bytes returns all that there is to read, for reading only.
func (r *Reader) Bytes() []byte { return r.all }
