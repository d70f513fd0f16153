package wire_test

import (
	"testing"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/wire"
)

func ackSet(n int) *chunk.Ranges {
	var set chunk.Ranges
	for i := range int64(n) {
		set.Add(1000+i*10, 1007+i*10)
	}
	return &set
}

// The hot path takes no memory: building and reading DATA and ACK.
func TestNoAllocation(t *testing.T) {
	buf := make([]byte, 0, 2048)
	payload := make([]byte, 1174)
	set := ackSet(200)
	h := wire.Header{Dest: 1, Number: 2}
	var sum int64
	n := testing.AllocsPerRun(100, func() {
		b := h.Append(buf)
		b = (&wire.Ack{Window: 5}).Append(b, set, wire.MaxAckRanges, 800)
		b = wire.Seal((&wire.Data{Handle: 1, Payload: payload}).Append(b))
		_, frames, err := wire.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		r := wire.NewReader(frames)
		for r.Next() {
			switch r.Type {
			case wire.TypeAck:
				var a wire.Ack
				if err := a.Parse(r.Body); err != nil {
					t.Fatal(err)
				}
				for r := range a.Ranges(int64(a.Largest)) {
					sum += r.Len()
				}
			case wire.TypeData:
				var d wire.Data
				if err := d.Parse(r.Body); err != nil {
					t.Fatal(err)
				}
				sum += int64(len(d.Payload))
			}
		}
	})
	if n != 0 || sum == 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkBuildData(b *testing.B) {
	buf := make([]byte, 0, 2048)
	payload := make([]byte, 1174)
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for i := range b.N {
		h := wire.Header{Dest: 1, Number: uint32(i)}
		m := h.Append(buf)
		buf = wire.Seal((&wire.Data{Handle: 1, Offset: int64(i), Payload: payload}).Append(m))[:0]
	}
}

func BenchmarkParseData(b *testing.B) {
	msg := build(wire.Header{Dest: 1}, &wire.Data{Payload: make([]byte, 1174)})
	b.SetBytes(1174)
	b.ReportAllocs()
	for range b.N {
		_, frames, err := wire.Parse(msg)
		r := wire.NewReader(frames)
		var d wire.Data
		if err != nil || !r.Next() || d.Parse(r.Body) != nil {
			b.Fatal("no DATA")
		}
	}
}

// The frame alone, without header and checksum.
func BenchmarkFrameData(b *testing.B) {
	buf := make([]byte, 0, 2048)
	b.ReportAllocs()
	for i := range b.N {
		f := wire.Data{Handle: 1, Offset: int64(i)}
		r := wire.NewReader(f.Append(buf))
		var d wire.Data
		if !r.Next() || d.Parse(r.Body) != nil {
			b.Fatal("no DATA")
		}
	}
}

func benchmarkAck(b *testing.B, ranges int) {
	set := ackSet(ranges)
	buf := make([]byte, 0, 2048)
	b.ReportAllocs()
	for range b.N {
		m := (&wire.Ack{Window: 1 << 20}).Append(buf, set, wire.MaxAckRanges, 1100)
		r := wire.NewReader(m)
		var a wire.Ack
		if !r.Next() || a.Parse(r.Body) != nil {
			b.Fatal("no ACK")
		}
		for range a.Ranges(1 << 40) {
		}
	}
}

func BenchmarkAck1(b *testing.B)   { benchmarkAck(b, 1) }
func BenchmarkAck64(b *testing.B)  { benchmarkAck(b, 64) }
func BenchmarkAck256(b *testing.B) { benchmarkAck(b, 256) }
