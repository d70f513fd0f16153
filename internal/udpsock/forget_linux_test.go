package udpsock

import (
	"runtime"
	"testing"
	"weak"
)

// A socket that rests does not hold what it has read and written: it may be one of thousands.
func TestNothingMovedIsHeld(t *testing.T) {
	in, out := New(listen(t), quiet), New(listen(t), quiet)
	const n = 3
	var held []weak.Pointer[byte]
	packets := func(size int) []Packet {
		ps := make([]Packet, n)
		for i := range ps {
			ps[i] = Packet{Data: make([]byte, size), Addr: in.LocalAddr()}
			held = append(held, weak.Make(&ps[i].Data[0]))
		}
		return ps
	}
	if err := out.Write(packets(1000)); err != nil {
		t.Fatal(err)
	}
	for got := 0; got < n; {
		k, err := in.Read(packets(ReadSize))
		if err != nil {
			t.Fatal(err)
		}
		got += k
	}
	for range 3 { // x/net has some in pools
		runtime.GC()
	}
	for i, p := range held {
		if p.Value() != nil {
			t.Errorf("the memory of packet %d is held", i)
		}
	}
	runtime.KeepAlive(in)
	runtime.KeepAlive(out)
}
