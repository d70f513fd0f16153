package transport

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/pixferry/pixferry/chunk"
)

// Pipe returns two Conns that are joined in memory, for tests of programs that
// use Conns. Either end sends to the Server on the other one; receipts, resume,
// duplicates, messages, retries and cancelling are as over a network. There is
// no timer and no I/O in it, so that it works inside a testing/synctest bubble.
//
// A Send or SendMessage waits until the other end is served, however late that
// begins; when that serving has ended they are refused with ReasonNotServing.
// Close either end when done: the other one then has ErrPeerClosed.
func Pipe() (Conn, Conn) {
	a, b := newPipeEnd(), newPipeEnd()
	a.peer, b.peer = b, a
	return a, b
}

type pipeEnd struct {
	UnimplementedConn
	peer   *pipeEnd
	sender Sender

	mu      sync.Mutex
	inbox   *Inbox          // while it is served
	served  chan struct{}   // closed when Serve is called
	closed  context.Context // ends with the pipe, the cause as seen from here
	endWith context.CancelCauseFunc
}

func newPipeEnd() *pipeEnd {
	p := &pipeEnd{served: make(chan struct{})}
	p.closed, p.endWith = context.WithCancelCause(context.Background())
	return p
}

func (p *pipeEnd) Info() Info {
	return Info{Protocol: "pipe", Peer: "pipe", Confirms: Kept, Concurrency: 16, Messages: true, Resumes: true}
}

func (p *pipeEnd) Close() error {
	p.end(ErrClosed)
	p.peer.end(ErrPeerClosed)
	return nil
}

func (p *pipeEnd) end(cause error) {
	p.sender.Close(cause)
	p.endWith(cause)
}

func (p *pipeEnd) Serve(ctx context.Context, in *Inbox) error {
	p.mu.Lock()
	select {
	case <-p.served:
		p.mu.Unlock()
		return &Error{Op: "serve", Err: ErrServed}
	default:
	}
	p.inbox = in
	close(p.served)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.inbox = nil
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.closed.Done():
		if err := context.Cause(p.closed); err != ErrPeerClosed {
			return err
		}
		return nil
	}
}

// waitServed returns the Inbox of this end when it is served.
func (p *pipeEnd) waitServed(ctx context.Context) (*Inbox, error) {
	select {
	case <-p.served:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inbox == nil {
		return nil, reject(ReasonNotServing, "its Serve has returned")
	}
	return p.inbox, nil
}

func (p *pipeEnd) SendMessage(ctx context.Context, m Message) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.closed, func() { cancel(context.Cause(p.closed)) })()
	in, err := p.peer.waitServed(ctx)
	if err == nil {
		err = in.Message(ctx, m)
	}
	switch refused := (*RejectedError)(nil); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return &Error{Op: "message", Outcome: Unknown, Err: context.Cause(ctx)}
	case errors.As(err, &refused):
		return &Error{Op: "message", Outcome: Rejected, Err: err}
	}
	return &Error{Op: "message", Outcome: NotKept, Err: err}
}

func (p *pipeEnd) Send(ctx context.Context, img *Image, o *SendOptions) (Receipt, error) {
	return p.sender.Send(ctx, p.Info(), img, o, func(ctx context.Context, out *Outgoing) (Receipt, error) {
		in, err := p.peer.waitServed(ctx)
		if err != nil {
			return Receipt{}, err
		}
		return feed(ctx, in, out)
	})
}

// feed carries an image into an Inbox.
func feed(ctx context.Context, in *Inbox, out *Outgoing) (Receipt, error) {
	a, err := in.Offer(ctx, Offer{
		ID: out.ID, Image: out.Image, Size: out.Body.Size, Digest: XXH3, Oldest: out.Oldest, Attempt: out.NextAttempt(),
		Resume: out.Body.ReaderAt != nil && out.Body.Size >= 0 && out.Options.Live == nil,
	})
	if err != nil {
		return Receipt{}, err
	}
	root, size, err := copyBody(ctx, a, out)
	if err == nil {
		err = out.Body.Check()
	}
	if err != nil {
		a.Abort(err)
		return Receipt{}, err
	}
	out.Digest = root
	out.LastByteSent()
	return a.Finish(ctx, size, root)
}

// copyBody feeds what the Arrival does not hold yet, and digests all of it: of a
// duplicate too, since only that tells it from another image under the same ID.
func copyBody(ctx context.Context, a *Arrival, out *Outgoing) (chunk.Digest, int64, error) {
	blocks, tree := chunk.NewBlockHasher(XXH3), chunk.NewTree(XXH3)
	duplicate := a.Whole()
	var same []int64
	held := make(map[int64]bool)
	for _, b := range a.Held() {
		d, err := blocks.Read(out.Body.ReaderAt, b.Index, out.Body.Size)
		if err != nil {
			return chunk.Digest{}, 0, err
		}
		if d == b.Digest {
			same = append(same, b.Index)
			held[b.Index] = true
			tree.Set(b)
		}
	}
	if err := a.Use(same); err != nil {
		return chunk.Digest{}, 0, err
	}
	n := int64(chunk.BlockSize)
	if size := out.Body.Size; size >= 0 {
		n = min(n, size+1) // so that the last read comes back short
	}
	buf := make([]byte, n)
	for i, pos := int64(0), int64(0); ; i++ {
		if held[i] {
			out.Body.pos = chunk.BlockRange(i, out.Body.Size).End
			pos = out.Body.pos
			continue
		}
		if err := ctx.Err(); err != nil {
			return chunk.Digest{}, 0, err
		}
		n, err := io.ReadFull(out.Body, buf)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return chunk.Digest{}, 0, err
		}
		if n > 0 {
			tree.Set(chunk.Block{Index: i, Digest: blocks.Sum(buf[:n])})
			if !duplicate {
				out.Count(int64(n))
				if _, err := a.WriteAt(buf[:n], pos); err != nil {
					return chunk.Digest{}, 0, err
				}
				out.Progress(a.Received())
			}
			pos += int64(n)
		}
		if n < len(buf) {
			root, _ := tree.Root(pos)
			return root, pos, nil
		}
	}
}
