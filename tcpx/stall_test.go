package tcpx

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// A peer that begins a message and is silent then holds the memory for it no longer than the idle time. One that is slow,
// or rests between two messages, is waited for.
func TestMessageThatStops(t *testing.T) {
	for name, begun := range map[string][]byte{
		"in the length":  {1},
		"in the message": append(binary.LittleEndian.AppendUint32(nil, maxMessage), 1, 2, 3),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				peer, conn := net.Pipe()
				defer peer.Close()
				l := newLink(conn, 30*time.Second)
				l.drain = 0
				read := make(chan error, 1)
				go func() {
					for buf := make([]byte, maxMessage); ; {
						err := l.WaitMessage()
						if err == nil {
							_, err = l.ReadMessage(buf)
						}
						if err != nil {
							read <- err
							return
						}
					}
				}()
				whole := append(binary.LittleEndian.AppendUint32(nil, 5), "hello"...)
				for _, b := range whole { // slowly
					peer.Write([]byte{b})
					time.Sleep(29 * time.Second)
				}
				time.Sleep(time.Hour)
				peer.Write(begun)
				time.Sleep(29 * time.Second)
				select {
				case err := <-read:
					t.Fatal("too early:", err)
				default:
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				select {
				case err := <-read:
					if !errors.Is(err, transport.ErrIdle) {
						t.Error(err)
					}
				default:
					t.Error("it is waited for without end")
				}
				peer.SetReadDeadline(time.Now().Add(time.Second))
				if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
					t.Errorf("the connection is open: %v", err)
				}
				l.Abort()
			})
		})
	}
}
