package udpx_test

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
	"github.com/pixferry/pixferry/udpx"
)

// walled is a socket whose system lets nothing out.
type walled struct{ net.PacketConn }

var errWalled = errors.New("operation not permitted")

func (walled) WriteTo([]byte, net.Addr) (int, error) { return 0, errWalled }

// What a firewall of this host, or the want of a route, keeps from leaving is not told as the peer's silence alone.
func TestErrorSaysThatNothingLeaves(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	tr := &udpx.Transport{Conn: walled{pc}, Config: native.Config{IdleTimeout: 50 * time.Millisecond}}
	_, err = tr.DialAddr(t.Context(), pc.LocalAddr())
	if !errors.Is(err, transport.ErrNoReceiver) || !transport.Retryable(err) || !strings.Contains(err.Error(), errWalled.Error()) {
		t.Error(err)
	}
}
