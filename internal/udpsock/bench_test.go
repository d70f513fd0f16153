package udpsock

import (
	"testing"
	"time"
)

// BenchmarkLoopback is what the system can do at best with datagrams of 1,452 bytes.
func BenchmarkLoopback(b *testing.B) {
	for _, off := range []string{"on", "off"} {
		b.Run("offload="+off, func(b *testing.B) {
			b.Setenv(OffloadVariable, off)
			in, out := New(listen(b), quiet), New(listen(b), quiet)
			done := make(chan struct{})
			go func() {
				defer close(done)
				ps, memory := make([]Packet, 32), make([]byte, 32*ReadSize)
				for {
					for i := range ps {
						ps[i] = Packet{Data: memory[i*ReadSize:][:ReadSize:ReadSize]}
					}
					if _, err := in.Read(ps); err != nil {
						return
					}
				}
			}()
			p := train(45, 1452, 0, in.LocalAddr())
			b.SetBytes(2 * int64(len(p.Data)))
			for b.Loop() {
				out.Write([]Packet{p, p})
			}
			in.SetReadDeadline(time.Now())
			<-done
		})
	}
}
