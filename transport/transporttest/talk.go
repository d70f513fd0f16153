package transporttest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// checkNotServing is about a peer that is there and does not serve: nobody may
// be told that it has an image.
func checkNotServing(t testing.TB, k transportKit) {
	if k.Confirms == transport.Sent {
		t.Skip("Received or more is not claimed")
	}
	r := k.listen(t)
	ctx, stop := context.WithCancel(t.Context())
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		if c, err := r.listener.Accept(ctx); err == nil {
			<-ctx.Done()
			c.Close()
		}
	}()
	defer func() { stop(); await(t, "the accepted Conn's Close", accepted) }()
	r.conn = r.dial()
	img, _ := r.image()
	sending, cancel := context.WithTimeout(t.Context(), k.transferTime()/2) // less than a device may wait for its answer
	defer cancel()
	err := r.fails(r.start(sending, r.conn, img, nil), "it went to a peer that does not serve", nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		r.refused(err, transport.ReasonNotServing, true)
	}
}

func checkMessages(t testing.TB, k transportKit) {
	if k.Messages == 0 {
		checkNoMessages(t, k)
		return
	}
	type note struct {
		from transport.Conn
		m    transport.Message
	}
	notes := make(chan note, 64)
	answer := make(chan error, 1)
	take := func(_ context.Context, from transport.Conn, m transport.Message) error {
		select {
		case err := <-answer:
			return err
		default:
		}
		notes <- note{from, m}
		return nil
	}
	r := k.rig(t, func(s *transport.Server) { s.Message = take })
	send := func(c transport.Conn, m transport.Message) (peer transport.Conn) {
		t.Helper()
		r.within("SendMessage", func() {
			if err := c.SendMessage(t.Context(), m); err != nil {
				t.Fatalf("SendMessage of %d bytes: %v", len(m.Data), err)
			}
		})
		got := await(t, "a message", notes)
		if got.m.Type != m.Type || !bytes.Equal(got.m.Data, m.Data) {
			t.Errorf("a message of type %q with %d bytes arrived as %q with %d, or changed", m.Type, len(m.Data), got.m.Type, len(got.m.Data))
		}
		return got.from
	}
	var peer transport.Conn
	for _, m := range []transport.Message{
		{}, {Type: "text/plain", Data: []byte("ok")}, {Type: "cmd", Data: []byte{0, 255, '\n', 0}}, {Data: bytes.Repeat([]byte{7}, k.Messages)},
	} {
		peer = send(r.conn, m)
	}
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if err := r.conn.SendMessage(t.Context(), transport.Message{Type: "many"}); err != nil {
				t.Errorf("one of 16 messages at once: %v", err)
			}
		})
	}
	r.within("16 messages at once", all.Wait)
	for range 16 {
		await(t, "one of 16 messages", notes)
	}
	if k.Rejections {
		answer <- transport.Reject("no such command")
		r.refusesMessages("no such command")
	}
	r.works(false, "messages")
	if k.BothWays {
		go r.server(func(s *transport.Server) { s.Message = take }).ServeConn(t.Context(), r.conn)
		send(peer, transport.Message{Type: "answer", Data: []byte("from the listening side")})
	}
}

func checkNoMessages(t testing.TB, k transportKit) {
	r := k.rig(t, nil)
	r.within("SendMessage", func() {
		if err := r.conn.SendMessage(t.Context(), transport.Message{}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("SendMessage without messages in the protocol: %v; want errors.ErrUnsupported", err)
		}
	})
	r.works(false, "a message that cannot be sent")
}

// refusesMessages is for a Server that refuses the next message with a text, and those that are too large.
func (r *rig) refusesMessages(text string) {
	r.within("SendMessage that is refused", func() {
		err := r.conn.SendMessage(r.Context(), transport.Message{Type: "cmd"})
		if refusal := (*transport.RejectedError)(nil); !errors.As(err, &refusal) || !strings.Contains(refusal.Text, text) {
			r.Errorf("SendMessage that is refused: %v; want a *RejectedError with the Server's text", err)
		}
	})
	r.within("SendMessage that is too large", func() {
		err := r.conn.SendMessage(r.Context(), transport.Message{Data: make([]byte, 64<<10+1)})
		tooLarge, refusal := (*transport.TooLargeError)(nil), (*transport.RejectedError)(nil)
		if !errors.As(err, &tooLarge) && (!errors.As(err, &refusal) || refusal.Reason != transport.ReasonTooLarge) {
			r.Errorf("SendMessage of more than the peer's limit: %v; want a *TooLargeError or a refusal as too large", err)
		}
	})
}

func checkBothWays(t testing.TB, k transportKit) {
	if !k.BothWays {
		t.Skip("BothWays is not claimed")
	}
	peers := make(chan transport.Conn, 64)
	r := k.rig(t, func(s *transport.Server) {
		s.Handler = func(_ context.Context, in *transport.Incoming) error { peers <- in.Conn; return nil }
	})
	img, b := r.image()
	r.deliver(r.conn, img, b, nil)
	peer := await(t, "the listening side's Conn", peers)
	back := &rig{TB: t, k: k, arrived: make(chan arrival, 64), known: make(map[string]int), made: 1 << 8}
	go back.server(nil).ServeConn(t.Context(), r.conn)

	var all sync.WaitGroup
	for _, way := range []struct {
		*rig
		conn transport.Conn
	}{{r, r.conn}, {back, peer}} {
		all.Go(func() {
			for range 5 {
				b := way.content(int(k.fit(1_000_000)))
				if _, err := way.send(t.Context(), way.conn, way.imageOf(b), nil); err != nil {
					t.Errorf("Send while the other side sends too: %v", err)
					return
				}
				way.expect(b)
			}
		})
	}
	r.within("images both ways at once", all.Wait)
}

func checkShutdown(t testing.TB, k transportKit) {
	if k.Confirms < transport.Kept {
		t.Skip("Kept is not claimed")
	}
	g := newGate()
	r := k.rig(t, g.hold)
	img, b := r.image()
	active := r.start(t.Context(), r.conn, img, nil)
	await(t, "the Handler", g.entered)
	shutdown := make(chan error, 1)
	go func() { shutdown <- r.srv.Shutdown(t.Context()) }()
	ended := make(chan error, 1)
	go func() {
		_, err := r.listener.Accept(t.Context())
		ended <- err
	}()
	if err := await(t, "the Listener's Close by Shutdown", ended); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Shutdown: %v; want an error that matches net.ErrClosed", err)
	}
	if k.Concurrency > 1 && k.Rejections {
		late, lateContent := r.image()
		_, err := r.send(t.Context(), r.conn, late, nil)
		r.refused(err, transport.ReasonGoingAway, true)
		defer r.nothing(lateContent)
	}
	select {
	case err := <-shutdown:
		t.Errorf("Shutdown returned %v while an image was on its way", err)
	case err := <-r.serving:
		t.Errorf("Serve returned %v while an image was on its way: its Store may be closed now", err)
		r.serving <- err
	default:
	}
	close(g.opened)
	if err := await(t, "an image that was on its way at Shutdown", active.err); err != nil {
		t.Errorf("an image that was on its way at Shutdown: %v", err)
	}
	r.expect(b)
	if err := await(t, "Shutdown", shutdown); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	err := await(t, "the end of Serve after Shutdown", r.serving)
	if !errors.Is(err, transport.ErrServerClosed) {
		t.Errorf("Serve after Shutdown: %v; want ErrServerClosed", err)
	}
	r.serving <- err // for the end of the test
}

func checkLive(t testing.TB, k transportKit) {
	if !k.Live {
		t.Skip("Live is not claimed")
	}
	r := k.rig(t, nil)
	old, other := r.content(k.usual()), r.content(k.usual())
	frame := func(ctx context.Context, img *transport.Image, source string) *sending {
		return r.start(ctx, r.conn, img, &transport.SendOptions{Live: &transport.Live{Source: source}})
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	img, reached := r.stuck(old)
	first := frame(ctx, img, "cam-1")
	await(t, "the source's middle", reached)
	if k.Concurrency > 1 {
		img, reached = r.stuck(other)
		frame(t.Context(), img, "cam-2") // another camera's frame is not held up
		await(t, "the source's middle", reached)
	}
	// Of two frames that wait for the first one, that which came last stays.
	var waiting [2]*sending
	var contents [2][]byte
	for i := range waiting {
		img, contents[i] = r.image()
		waiting[i] = frame(t.Context(), img, "cam-1")
	}
	older, newer := 0, 1
	var err error
	select {
	case err = <-waiting[0].err:
	case err = <-waiting[1].err:
		older, newer = 1, 0
	case <-time.After(patience(t)):
	}
	if !errors.Is(err, transport.ErrSuperseded) {
		t.Errorf("of two live frames that wait none was superseded: %v", err)
	}
	cancel()
	r.fails(first, "its context's end", context.Canceled)
	if err := await(t, "the newest frame", waiting[newer].err); err != nil {
		t.Errorf("the newest frame: %v", err)
	}
	r.expect(contents[newer])
	r.nothing(old, other, contents[older])

	img, _ = r.stuck(old)
	start := time.Now()
	late := r.start(t.Context(), r.conn, img, &transport.SendOptions{Live: &transport.Live{Source: "cam-3", MaxAge: 50 * time.Millisecond}})
	r.fails(late, "MaxAge", nil)
	if took := time.Since(start); took < 50*time.Millisecond {
		t.Errorf("a frame with a MaxAge of 50 ms was given up after %v", took)
	}
	r.works(true, "live frames")
	r.nothing(old, other)
}

// slowReaderAt is slow from a position on until it is hurried.
type slowReaderAt struct {
	*bytes.Reader
	from  int64
	hurry chan struct{}
}

func (s *slowReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > s.from {
		select {
		case <-s.hurry:
		case <-time.After(100 * time.Millisecond):
		}
	}
	return s.Reader.ReadAt(p, off)
}

const resumeSize, resumeAt, resumeLeast = 6 << 20, 4 << 20, 2 << 20

// cutOff sends about 4 of 6 MiB and then closes the Conn.
func (r *rig) cutOff(name string, b []byte, id transport.ID) {
	source := &slowReaderAt{Reader: bytes.NewReader(b), from: resumeAt, hurry: make(chan struct{})}
	enough := make(chan struct{})
	var once sync.Once
	img := &transport.Image{Name: name, Source: "cam", Body: transport.Content(source, int64(len(b)))}
	s := r.start(r.Context(), r.conn, img, &transport.SendOptions{ID: id, Progress: func(acked, _ int64) {
		if acked >= resumeLeast {
			once.Do(func() { close(enough) })
		}
	}})
	await(r.TB, "progress to 2 MiB", enough)
	r.within("Close", func() { r.conn.Close() })
	close(source.hurry)
	r.fails(s, "Close half-way", nil)
	r.conn = r.dial()
}

func checkResume(t testing.TB, k transportKit) {
	if !k.Resume || k.MaxSize > 0 && k.MaxSize < resumeSize {
		t.Skip("Resume, for images of several MiB, is not claimed")
	}
	for _, tt := range []struct {
		name    string
		id      transport.ID
		changed bool
	}{
		{"same.bin", transport.NewID(), false}, // what held the last attempt is found by its name
		{"other.bin", transport.NewID(), true}, // but never mixed with other content
	} {
		r := k.rig(t, func(s *transport.Server) { s.Store = &transport.MemStore{} })
		b := r.content(resumeSize)
		r.cutOff(tt.name, b, tt.id)
		if tt.changed {
			b = bytes.Clone(b)
			for i := 100; i < len(b); i += 1 << 20 { // something in each block
				b[i]++
			}
			r.again(b, 1)
		}
		var receipt transport.Receipt
		img := &transport.Image{Name: tt.name, Source: "cam", Body: transport.Bytes(b)}
		untilGone := &transport.RetryPolicy{MaxAttempts: 100, Max: 100 * time.Millisecond} // the old Conn, to the receiver
		err := transport.Retry(t.Context(), untilGone, func(ctx context.Context) (err error) {
			receipt, err = r.send(ctx, r.conn, img, &transport.SendOptions{ID: tt.id})
			return err
		})
		if err != nil {
			t.Fatalf("Send after a Conn that ended half-way: %v", err)
		}
		r.receiptOf(receipt, b)
		r.expect(b)
		switch {
		case !tt.changed && receipt.Reused < 1<<20:
			t.Errorf("%d bytes were reused of the 2 MiB or more that were acknowledged before", receipt.Reused)
		case tt.changed && receipt.Reused > 0:
			t.Errorf("%d bytes were reused although every block has changed", receipt.Reused)
		}
	}
}
