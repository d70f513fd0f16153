package udpx_test

import (
	"context"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/testnet"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
	"github.com/pixferry/pixferry/udpx"
)

func ip(t testing.TB, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Errorf("ip %s: %v, %s", args, err, out)
	}
}

// A host moves to another network while it sends, or while it is sent an image: the session goes on from its new
// address. A Stream cannot be sent in two.
func TestHostChangesItsAddress(t *testing.T) {
	if !testnet.Inside(t) {
		return
	}
	ip(t, "link set lo up")
	for _, address := range []string{"10.77.0.1", "10.77.0.2", "10.77.0.9"} {
		ip(t, "address add "+address+"/32 dev lo")
	}
	ip(t, "rule add lookup local pref 9")
	ip(t, "rule delete pref 0")
	from := func(address string) { ip(t, "route replace local 10.77.0.9 dev lo table local src "+address) }
	for _, c := range []struct {
		name        string
		leave, back string // of the old address
		receives    bool   // the host that moves
	}{
		{"its address is gone", "address delete 10.77.0.1/32 dev lo", "address add 10.77.0.1/32 dev lo", false},
		{"it receives, and its address is gone", "address delete 10.77.0.1/32 dev lo", "address add 10.77.0.1/32 dev lo", true},
		{"nothing leaves from its address", "rule add from 10.77.0.1 prohibit pref 1", "rule delete pref 1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			from("10.77.0.1")
			l, err := (&udpx.Transport{Addr: "10.77.0.9:0"}).Listen(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			conn, err := (&udpx.Transport{Addr: l.Addr().String(), Config: native.Config{IdleTimeout: 4 * time.Second}}).Dial(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			other, err := l.Accept(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			sender, receiver := conn, other
			if c.receives {
				sender, receiver = other, conn
			}
			store := &transport.MemStore{}
			go (&transport.Server{Store: store}).ServeConn(ctx, receiver)
			image := noise(1, 3<<20)
			r, w := io.Pipe()
			go func() {
				w.Write(image[:1<<20])
				from("10.77.0.2")
				ip(t, c.leave)
				w.Write(image[1<<20:])
				w.Close()
			}()
			defer ip(t, c.back)
			if _, err := sender.Send(ctx, &transport.Image{Name: "a", Body: transport.Stream(r)}, nil); err != nil {
				t.Error(err)
			}
			kept(t, store, "a", image)
		})
	}
}
