package udpx

import (
	"container/list"
	"context"
	"errors"
	"net"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// peer is an address from which datagrams come: the Conn that a hub accepts.
type peer struct {
	transport.UnimplementedConn
	hub  *hub
	key  addrKey
	addr net.Addr        // to answer; the server's, who changes it with the hub's mutex
	wake chan struct{}   // has a token when there is something new
	life context.Context // ends with Close
	end  context.CancelFunc

	// Guarded by the hub's mutex.
	age     *list.Element
	waiting []datagram
	queued  int   // bytes of waiting
	lost    bool  // some have been
	busy    bool  // something is on its way, or being taken
	served  bool  // Serve was called
	ended   error // why
}

func (p *peer) Info() transport.Info {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	info := p.hub.device.info
	info.Peer, info.Messages = p.addr.String(), false // to the peer: it is not asked for them
	return info
}

func (p *peer) err() error {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	return p.ended
}

// Serve takes what comes until the peer has been silent for long.
func (p *peer) Serve(ctx context.Context, in *transport.Inbox) error {
	if !p.begin() {
		return &transport.Error{Op: "serve", Err: transport.ErrServed}
	}
	serving, cancel := context.WithCancel(ctx) // also of the wait for a Handler
	stop := context.AfterFunc(p.life, cancel)
	err := p.hub.device.serve(serving, p, in)
	stop()
	cancel()
	switch {
	case errors.Is(err, errForgotten):
		p.hub.release()
		return nil
	case p.life.Err() != nil:
		err = transport.ErrClosed
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	return &transport.Error{Op: "serve", Err: err}
}

func (p *peer) begin() bool {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	first := !p.served
	p.served = true
	return first
}

func (p *peer) Close() error {
	p.end()
	p.hub.mu.Lock()
	p.hub.drop(p, transport.ErrClosed)
	p.hub.mu.Unlock()
	if p.hub.release() {
		<-p.hub.done
	}
	return nil
}

// signal wakes next.
func (p *peer) signal() { notify(p.wake) }

// next waits for the next datagram. With nothing on its way the peer is forgotten if it
// comes too late. Else the wait is until the deadline, if there is one; then the error is
// errNothing.
func (p *peer) next(ctx context.Context, busy bool, deadline time.Time) (datagram, error) {
	if limit := p.hub.device.forget; !busy && limit > 0 {
		deadline = time.Now().Add(limit)
	}
	var late <-chan time.Time
	for ctx.Err() == nil {
		if d, err := p.take(busy); err != nil || !d.at.IsZero() {
			return d, err
		}
		if late == nil && !deadline.IsZero() {
			late = time.After(time.Until(deadline))
		}
		select {
		case <-p.wake:
		case <-late:
			if busy {
				return datagram{}, errNothing
			}
			p.forget()
		case <-ctx.Done():
		}
	}
	return datagram{}, ctx.Err()
}

// take returns the first datagram that waits, if there is one.
func (p *peer) take(busy bool) (datagram, error) {
	h := p.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.ended != nil {
		return datagram{}, p.ended
	}
	if len(p.waiting) == 0 {
		p.busy = busy
		return datagram{}, nil
	}
	p.busy = true
	d := p.waiting[0]
	p.addr = d.from
	p.waiting[0] = datagram{}
	p.waiting = p.waiting[1:]
	p.queued -= len(d.data) + overhead
	h.queued -= len(d.data) + overhead
	return d, nil
}

// forget ends a peer for its silence, unless that has just ended.
func (p *peer) forget() {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	if len(p.waiting) == 0 {
		p.hub.drop(p, errForgotten)
	}
}

// reply sends an answer.
func (p *peer) reply(text string) {
	if err := p.hub.conn.WriteOne([]byte(text), p.addr); err != nil {
		p.hub.device.log.Warn("cannot answer", "peer", p.addr, "err", err)
	}
}

// replyImage answers an image of which err is the outcome, unless that is open because
// the context has ended.
func (p *peer) replyImage(ctx context.Context, err error) {
	switch {
	case err == nil:
		p.reply(AnswerImage)
	case ctx.Err() == nil || !errors.Is(err, ctx.Err()):
		p.reply(AnswerBad)
	}
}
