package wire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/framing"
	"github.com/pixferry/pixferry/internal/wire"
)

// buildSender compiles testdata/csender without a warning.
func buildSender(t *testing.T) string {
	cc, err := exec.LookPath("cc")
	if err != nil || runtime.GOOS == "windows" {
		t.Skip("needs a C compiler and POSIX sockets")
	}
	out := filepath.Join(t.TempDir(), "sender")
	cmd := exec.CommandContext(t.Context(), cc, "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2", "-o", out, "testdata/csender/sender.c")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return out
}

// scripted is a receiver that holds the sender to every rule of SPEC.md for one
// image over TCP. It takes little at a time.
type scripted struct {
	conn             net.Conn
	hello            wire.Hello
	reject           *wire.Reject // at the first DATA
	wrong            bool         // a receipt for other bytes
	sent             uint32
	received         uint32
	peer             wire.ConnID
	unacked, packets int // of DATA
	offer            wire.Offer
	fin              *wire.Fin
	acked            int64 // highest of our numbers that the sender has
	closed           *wire.Close
	content          []byte
}

const scriptedID wire.ConnID = 0x7000000000000001

func (s *scripted) send(frames ...frame) error {
	h := wire.Header{Long: s.sent == 0, Dest: s.peer, Number: s.sent, Version: wire.Version1, Source: scriptedID}
	if !h.Long {
		h = wire.Header{Dest: s.peer, Number: s.sent}
	}
	s.sent++
	_, err := s.conn.Write(stream(buildReliable(h, frames...)))
	return err
}

func (s *scripted) ack() frame {
	s.unacked, s.packets = 0, 0
	return newAck(wire.Ack{Window: s.hello.Window, Messages: s.hello.Messages}, chunk.Range{End: int64(s.received)})
}

// run receives until the sender closes.
func (s *scripted) run() error {
	s.acked = -1
	prefix := framing.Prefix{Max: int(s.hello.MaxMessage)}
	for s.closed == nil {
		msg, err := prefix.ReadFrame(s.conn, nil)
		if err != nil {
			return err
		}
		h, types, frames, err := decodeBy(wire.ParseReliable, msg)
		if err != nil {
			return err
		}
		if h.Number != s.received || h.Long != (s.received == 0) || !h.Long && h.Dest != scriptedID {
			return fmt.Errorf("header %+v of message %d", h, s.received)
		}
		if h.Long {
			if len(msg) > wire.InitialMessage || types[0] != wire.TypeHello {
				return fmt.Errorf("a first message of %d bytes with %v", len(msg), types[0])
			}
			s.peer = h.Source
		}
		s.received++
		for _, f := range frames {
			if err := s.obey(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *scripted) obey(f frame) error {
	switch f := f.(type) {
	case *wire.Hello:
		return s.send(&s.hello, s.ack(), &other{kind: wire.TypePing}, &other{kind: 0x99, Body: []byte("skip")}, &other{kind: wire.TypePadding})
	case *wire.Offer:
		s.offer = *f
		s.offer.Meta = bytes.Clone(f.Meta)
	case *wire.Data:
		s.unacked += len(f.Payload)
		s.packets++
		if s.fin != nil || f.Offset != int64(len(s.content)) || f.Handle != s.offer.Handle || s.unacked > int(s.hello.Window) || s.packets > int(s.hello.Messages) {
			return fmt.Errorf("DATA at %d after %d bytes, %d bytes in flight in %d messages", f.Offset, len(s.content), s.unacked, s.packets)
		}
		s.content = append(s.content, f.Payload...)
		if s.reject != nil {
			r := *s.reject
			s.reject = nil
			r.Handle, r.Attempt, r.ID = s.offer.Handle, s.offer.Attempt, s.offer.ID
			return s.send(s.ack(), &r)
		}
		if s.packets == int(s.hello.Messages) || s.unacked > int(s.hello.Window)/2 {
			return s.send(s.ack())
		}
	case *wire.Fin:
		s.fin = f
		r := &wire.Receipt{Handle: f.Handle, Attempt: f.Attempt, ID: s.offer.ID, Level: wire.LevelKept, Bytes: f.Size, Algorithm: f.Algorithm, Digest: bytes.Clone(f.Digest)}
		if s.wrong {
			r.Digest[0]++
		}
		return s.send(s.ack(), &other{kind: wire.TypePing}, r)
	case *ack:
		if f.received.Count() != 1 || f.received.Max()-1<<32 > int64(s.sent) {
			return errors.New("acknowledges what was not sent, or with gaps")
		}
		s.acked = f.received.Max() - 1<<32 - 1
	case *wire.Close:
		s.closed = f
	}
	return nil
}

func TestSenderInC(t *testing.T) {
	bin := buildSender(t)
	roomy := wire.Hello{MaxMessage: 65536, Window: 1 << 20, Messages: 64, AckRanges: 256, Transfers: 1, Metadata: 1024}
	small := wire.Hello{MaxMessage: wire.MinMessage, Window: 700, Messages: 3, AckRanges: 1, Transfers: 1, Metadata: 300}
	lone := wire.Hello{MaxMessage: 1200, Window: 10, Messages: wire.NoMessageLimit, AckRanges: 1, Transfers: 1, Metadata: 300}
	full := wire.Hello{MaxMessage: 1200, AckRanges: 1}
	for _, v := range []struct {
		name   string
		size   int
		hello  wire.Hello
		reject *wire.Reject
		wrong  bool
		exit   int
		says   string
	}{
		{name: "empty", hello: roomy, says: "kept: 0 bytes"},
		{name: "one byte", size: 1, hello: small, says: "kept: 1 bytes"},
		{name: "a block", size: chunk.BlockSize, hello: roomy, says: "kept: 1048576 bytes"},
		{name: "three blocks and a bit", size: 3*chunk.BlockSize + 1, hello: roomy, says: "kept: 3145729 bytes"},
		{name: "to a small device", size: 100_000, hello: small, says: "kept: 100000 bytes"},
		{name: "window of less than a message", size: 30_000, hello: lone, says: "kept: 30000 bytes"},
		{name: "rejected for good", size: 100_000, hello: small, reject: &wire.Reject{Reason: 1, Text: "too large: send less"}, exit: 3, says: "too large: send less"},
		{name: "rejected for now", size: 100_000, hello: small, reject: &wire.Reject{Reason: 5, Flags: wire.RejectRetryable}, exit: 4, says: "rejected (reason 5)"},
		{name: "receipt for other bytes", size: 5, hello: roomy, wrong: true, exit: 1, says: "another image under this ID"},
		{name: "takes no transfers", size: 5, hello: full, exit: 1, says: "does not receive"},
	} {
		t.Run(v.name, func(t *testing.T) {
			s := &scripted{hello: v.hello, reject: v.reject, wrong: v.wrong}
			out, code := runSender(t, bin, s, pattern(v.size))
			if code != v.exit || !strings.Contains(out, v.says) {
				t.Fatalf("exit %d, want %d: %s", code, v.exit, out)
			}
			if v.exit != 0 {
				return
			}
			h := chunk.NewHasher(chunk.SHA256)
			h.Write(s.content)
			var m wire.Metadata
			if err := m.Parse(s.offer.Meta); err != nil || m.Name != "image.bin" || s.offer.Size != int64(v.size) {
				t.Errorf("offer %+v, metadata %+v %v", s.offer, m, err)
			}
			if !bytes.Equal(s.content, pattern(v.size)) || !bytes.Equal(s.fin.Digest, h.Root().Append(nil)) || s.fin.Size != int64(v.size) {
				t.Errorf("%d bytes arrived, FIN %+v", len(s.content), s.fin)
			}
			if s.closed.Code != wire.CodeDone || s.acked != int64(s.sent)-1 {
				t.Errorf("closed with %+v; %d of our %d messages acknowledged", s.closed, s.acked+1, s.sent)
			}
		})
	}
}

// runSender sends content to s and returns what the sender says and its exit code.
func runSender(t *testing.T, bin string, s *scripted, content []byte) (string, int) {
	file := filepath.Join(t.TempDir(), "image.bin")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	failed := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			s.conn = conn
			if err = s.run(); err == nil {
				io.Copy(io.Discard, conn)
			}
			conn.Close()
		}
		failed <- err
	}()
	host, port, _ := net.SplitHostPort(l.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, host, port, file)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	l.Close()
	if err := <-failed; err != nil {
		t.Fatalf("the receiver: %v; the sender: %s", err, out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
