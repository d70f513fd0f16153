package wire_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"reflect"
	"testing"

	"github.com/pixferry/pixferry/internal/wire"
)

// resealed gives b a right checksum, or the fuzzer would seldom get past it.
func resealed(b []byte) []byte {
	if n := len(b) - wire.Trailer; n >= 0 {
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint32(b[n:], crc32.Checksum(b[:n], crc32.MakeTable(crc32.Castagnoli)))
	}
	return b
}

// No message panics, and what one decodes to encodes to a message that decodes
// to the same and encodes to the same bytes.
func FuzzMessage(f *testing.F) {
	for _, v := range messages() {
		f.Add(build(v.header, v.frames...))
	}
	for _, v := range malformed() {
		f.Add(v.msg)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		wire.ParseReliable(b) // which counts frames off before it knows that they are right
		h, types, frames, err := decode(resealed(b))
		if err != nil {
			if e, ok := err.(*wire.Error); !ok || e.Text == "" || int(e.Code) > int(wire.CodeUnanswered) {
				t.Fatalf("untyped error %#v", err)
			}
			return
		}
		msg := build(h, frames...)
		h2, types2, frames2, err := decode(msg)
		if err != nil || h2 != h || !reflect.DeepEqual(types2, types) {
			t.Fatalf("% x\nencoded % x\ndecodes to %+v %v: %v", b, msg, h2, types2, err)
		}
		if again := build(h2, frames2...); !bytes.Equal(again, msg) {
			t.Fatalf("% x\nencodes to % x\nand then % x", b, msg, again)
		}
		reliable := buildReliable(h, frames...)
		if h3, types3, _, err := decodeBy(wire.ParseReliable, reliable); err != nil || h3 != h || !reflect.DeepEqual(types3, types) {
			t.Fatalf("% x\non a reliable link % x\ndecodes to %+v %v: %v", b, reliable, h3, types3, err)
		}
		for i, f := range frames {
			if f.Len() != len(f.Append(nil)) {
				t.Fatalf("%v: Len is %d, not %d", types[i], f.Len(), len(f.Append(nil)))
			}
		}
	})
}

func FuzzMetadata(f *testing.F) {
	for _, v := range metadata() {
		f.Add(v.meta.Append(nil))
	}
	for _, v := range malformedMetadata() {
		f.Add(v.b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m, again wire.Metadata
		if len(b) > wire.MaxBody || m.Parse(b) != nil {
			return
		}
		out := m.Append(nil)
		if len(out) != m.Len() || len(out) > len(b) {
			t.Fatalf("%d bytes became %d, Len says %d", len(b), len(out), m.Len())
		}
		if err := again.Parse(out); err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("% x: %+v, then %+v %v", b, m, again, err)
		}
	})
}

func FuzzPresence(f *testing.F) {
	f.Add(presence.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p wire.Presence
		b = resealed(b)
		if err := p.Parse(b); err == nil && !bytes.Equal(p.Append(nil), b) {
			t.Fatalf("% x: %+v", b, p)
		}
	})
}
