package transport

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/pixferry/pixferry/chunk"
)

// Pipe returns two Conns that are joined in memory, for tests of programs that use Conns. Each
// end sends to the Server that serves the other. Receipts, resume, duplicates, messages, retries
// and cancelling work as over a network. It uses no timer and no I/O, so that it works inside a
// testing/synctest bubble.
//
// A Send or SendMessage waits until the other end is served, without limit; when that serving has
// ended they are refused with ReasonNotServing. Close either end when done; calls on the other
// one then return ErrPeerClosed.
func Pipe() (Conn, Conn) {
	both := &pipe{}
	both.life, both.end = context.WithCancel(context.Background())
	a := &pipeEnd{pipe: both, served: make(chan struct{})}
	b := &pipeEnd{pipe: both, served: make(chan struct{}), peer: a}
	a.peer = b
	return a, b
}

// pipe is what both ends share.
type pipe struct {
	once   sync.Once
	closer *pipeEnd        // once life has ended
	life   context.Context // until either end is closed
	end    context.CancelFunc
}

type pipeEnd struct {
	UnimplementedConn
	*pipe
	peer   *pipeEnd
	sender Sender

	mu     sync.Mutex
	inbox  *Inbox        // while it is served
	served chan struct{} // closed when Serve is called
}

func (p *pipeEnd) Info() Info {
	return Info{Protocol: "pipe", Peer: "pipe", Confirms: Kept, Concurrency: 16, Messages: true, Resumes: true}
}

func (p *pipeEnd) Close() error {
	p.once.Do(func() {
		p.closer = p
		p.end()
	})
	p.sender.Close(p.cause())
	p.peer.sender.Close(p.peer.cause())
	return nil
}

// cause is why the pipe has ended, as seen from here; nil: it has not.
func (p *pipeEnd) cause() error {
	switch {
	case p.life.Err() == nil:
		return nil
	case p.closer == p:
		return ErrClosed
	}
	return ErrPeerClosed
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
		return &Error{Op: "serve", Err: ctx.Err()}
	case <-p.life.Done():
		if err := p.cause(); !errors.Is(err, ErrPeerClosed) {
			return &Error{Op: "serve", Err: err}
		}
		return nil
	}
}

// peerInbox returns the other end's Inbox when that is served.
func (p *pipeEnd) peerInbox(ctx context.Context) (*Inbox, error) {
	select {
	case <-p.peer.served:
	case <-p.life.Done():
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p.peer.mu.Lock()
	defer p.peer.mu.Unlock()
	if err := p.cause(); err != nil {
		return nil, err
	}
	if p.peer.inbox == nil {
		return nil, reject(ReasonNotServing, "its Serve has returned")
	}
	return p.peer.inbox, nil
}

func (p *pipeEnd) SendMessage(ctx context.Context, m Message) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.life, func() { cancel(p.cause()) })()
	in, err := p.peerInbox(ctx)
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
		in, err := p.peerInbox(ctx)
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
	duplicate := a.Joined()
	held, err := reuse(a, out.Body, blocks, tree)
	if err != nil {
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
		n, err := chunk.ReadFull(out.Body, buf)
		if err != nil && err != io.EOF { //nolint:errorlint // a wrapped EOF is a failure and no end
			return chunk.Digest{}, 0, err
		}
		if n > 0 {
			_ = tree.Set(chunk.Block{Index: i, Digest: blocks.Sum(buf[:n])})
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

// reuse has the Arrival use the blocks of this very body that it holds, and returns which these are.
func reuse(a *Arrival, body *OpenBody, blocks *chunk.BlockHasher, tree *chunk.Tree) (map[int64]bool, error) {
	var same []int64
	held := make(map[int64]bool)
	for _, b := range a.Held() {
		d, err := blocks.Read(body.ReaderAt, b.Index, body.Size)
		if err != nil {
			return nil, err
		}
		if d == b.Digest {
			same = append(same, b.Index)
			held[b.Index] = true
			_ = tree.Set(b) // of this image, as held says
		}
	}
	return held, a.Use(same)
}
