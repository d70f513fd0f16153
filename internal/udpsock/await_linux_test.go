package udpsock

import (
	"errors"
	"net"
	"os"
	"testing"
)

// A socket waits without memory to read into, and what Await has seen is still there to be read.
func TestAwait(t *testing.T) {
	in, out := New(listen(t), quiet), New(listen(t), quiet)
	resting, sent := make(chan struct{}, 1), make(chan struct{})
	idle := func() { resting <- struct{}{} }
	send := func() {
		t.Helper()
		if err := out.Write([]Packet{{Data: []byte("x"), Addr: in.LocalAddr()}}); err != nil {
			t.Error(err)
		}
	}
	go func() {
		<-resting
		send()
		close(sent)
	}()
	if err := in.Await(idle); err != nil {
		t.Fatal(err)
	}
	datagrams(t, in, 1)
	<-sent

	send()
	if err := in.Await(func() { t.Error("it rests although a datagram is there") }); err != nil {
		t.Fatal(err)
	}
	datagrams(t, in, 1)

	go func() {
		<-resting
		in.Interrupt()
	}()
	if err := in.Await(idle); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an interrupted Await: %v; want os.ErrDeadlineExceeded", err)
	}
	in.Resume()

	go func() {
		<-resting
		in.Close()
	}()
	if err := in.Await(idle); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Await of a socket that is closed: %v; want net.ErrClosed", err)
	}
}

// What the system says about a datagram that was sent is left to Read.
func TestAwaitLeavesErrors(t *testing.T) {
	c := refused(t)
	for _, after := range []string{"before", "while"} {
		sent := make(chan error, 1)
		send := func() { sent <- c.Write([]Packet{{Data: []byte("x")}}) }
		if after == "before" {
			send()
		}
		err := c.Await(func() { go send() })
		if err != nil {
			t.Fatalf("refused %s it waits: Await says %v", after, err)
		}
		if _, err := c.Read([]Packet{{Data: make([]byte, ReadSize)}}); !Refused(err) {
			t.Errorf("refused %s it waits: Read says %v; want refused", after, err)
		}
		if err := <-sent; err != nil && !Refused(err) {
			t.Error(err)
		}
	}
}
