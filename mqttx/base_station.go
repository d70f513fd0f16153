package mqttx

import (
	"context"
	"io"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/transport"
)

// baseStation is the Conn of the side that takes: it runs a baseReceiver.
type baseStation struct {
	transport.UnimplementedConn
	l      *baseListener
	first  []byte // what the sender has said
	once   sync.Once
	closed chan struct{}
	served chan struct{} // holds a token once Serve was called
}

// Info implements transport.Conn.
func (c *baseStation) Info() transport.Info {
	return c.l.base.info(c.l.link.broker, c.l.base.fromBase())
}

// Close implements transport.Conn.
func (c *baseStation) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.l.release()
	})
	return nil
}

// Serve implements transport.Conn.
func (c *baseStation) Serve(ctx context.Context, in *transport.Inbox) error {
	select {
	case c.served <- struct{}{}:
	default:
		return serveError(transport.ErrServed)
	}
	s := &baseServing{link: c.l.link, truncated: c.l.base.Truncated, in: in, r: c.l.base.newReceiver(), result: make(chan error, 1)}
	s.ctx = ctx
	s.after, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer s.stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	s.receive(c.first)
	for {
		if at := s.r.deadline(); at.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(at))
		}
		select {
		case p := <-c.l.link.in:
			s.receive(p)
		case <-timer.C:
			s.take(s.r.tick(time.Now()))
		case err := <-s.result:
			s.take(s.r.ended(err == nil, time.Now()))
		case <-ctx.Done():
			return serveError(context.Cause(ctx))
		case <-c.closed:
			return serveError(transport.ErrClosed)
		}
	}
}

// baseServing is a call of Serve.
type baseServing struct {
	link      *baseLink
	truncated bool
	in        *transport.Inbox
	r         *baseReceiver
	ctx       context.Context
	after     context.Context // ends soon after ctx
	cancel    context.CancelFunc
	running   sync.WaitGroup

	arrival *transport.Arrival // while it takes packages
	copy    *chunk.Buffer      // of its bytes, to hand over a part; or nil
	name    string
	result  chan error // of the image that is finishing
}

func (s *baseServing) receive(p []byte) {
	turn, err := s.r.receive(p, time.Now())
	if err != nil {
		s.link.strange(err)
	}
	s.take(turn)
}

// take does what a turn says.
func (s *baseServing) take(t baseTurn) {
	if t.lost != nil {
		s.lose(t.lost, t.prefix)
	}
	var err error
	switch {
	case t.begin:
		err = s.begin(s.r.head)
	case t.data != nil:
		err = s.write(t.data, t.offset)
	case t.finish:
		a := s.arrival
		s.arrival, s.copy = nil, nil
		s.running.Go(func() {
			_, err := a.Finish(s.after, -1, chunk.Digest{})
			s.result <- err
		})
	}
	if err != nil { // refused
		s.arrival, s.copy = nil, nil
		t = s.r.ended(false, time.Now())
	}
	if t.answer.Function != 0 {
		s.link.send(t.answer.Append(nil))
	}
}

func (s *baseServing) begin(head BaseHead) (err error) {
	s.name = head.Name
	s.arrival, err = s.in.Offer(s.ctx, transport.Offer{Image: transport.Image{Name: head.Name}, Size: head.Size})
	if err == nil && s.truncated {
		s.copy = chunk.NewBuffer(head.Size)
	}
	return err
}

func (s *baseServing) write(p []byte, off int64) error {
	_, err := s.arrival.WriteAt(p, off)
	if err == nil && s.copy != nil {
		_, err = s.copy.WriteAt(p, off)
	}
	return err
}

// lose gives the image up, and hands over the beginning of it if that is wanted.
func (s *baseServing) lose(why error, prefix int64) {
	s.arrival.Abort(why)
	part, name := s.copy, s.name
	s.arrival, s.copy = nil, nil
	if part == nil || prefix == 0 {
		return
	}
	extension := path.Ext(name)
	img := transport.Image{
		Name: strings.TrimSuffix(name, extension) + ".truncated" + extension,
		Meta: map[string]string{"truncated": why.Error()},
	}
	s.running.Go(func() {
		a, err := s.in.Offer(s.after, transport.Offer{Image: img, Size: prefix})
		if err != nil {
			return // the Server's hooks and log have it
		}
		if _, err := io.Copy(io.NewOffsetWriter(a, 0), io.NewSectionReader(part, 0, prefix)); err != nil {
			a.Abort(err)
			return
		}
		_, _ = a.Finish(s.after, -1, chunk.Digest{}) // hooks and log hear of it
	})
}

// stop ends everything. A sender that has been told nothing yet hears that it is over.
func (s *baseServing) stop() {
	told := s.r.state == baseIdle
	if s.arrival != nil {
		s.arrival.Abort(transport.ErrClosed)
	}
	timer := time.AfterFunc(flushTime, s.cancel)
	s.running.Wait()
	timer.Stop()
	s.cancel()
	kept := false
	select {
	case err := <-s.result:
		kept = err == nil
	default:
	}
	if !told {
		s.take(s.r.ended(kept, time.Now()))
	}
}
