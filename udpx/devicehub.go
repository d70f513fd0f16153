package udpx

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/pixferry/pixferry/internal/udpsock"
	"github.com/pixferry/pixferry/transport"
)

const (
	// batch is how many packets a hub reads at once.
	batch = 8
	// maxQueued and maxQueuedPeer bound what waits in memory for the programs that
	// serve the peers of one hub, and one peer, in bytes. What does not fit is lost, as
	// it would be in the kernel.
	maxQueued     = 64 << 20
	maxQueuedPeer = 8 << 20
	// overhead is what a datagram costs beyond its bytes.
	overhead = 64
)

var (
	errForgotten = errors.New("silent for long, or the longest of too many peers")
	errNothing   = errors.New("nothing came in time")
)

// hub is the side of a device protocol that takes: a socket whose peers are told apart
// by address. It is the Listener, and its socket lives until that and all peers are
// closed.
type hub struct {
	device *device
	conn   *udpsock.Conn
	accept chan *peer
	closed chan struct{} // the Listener is
	done   chan struct{} // the reader has ended

	mu      sync.Mutex
	err     error // why the Listener is closed
	peers   map[addrKey]*peer
	byAge   list.List // of *peer: the one heard last is at the back
	queued  int       // bytes of all peers
	refused bool      // a peer, for there are too many: logged once
}

func startHub(d *device, conn *udpsock.Conn) *hub {
	h := &hub{
		device: d, conn: conn, peers: make(map[addrKey]*peer),
		accept: make(chan *peer, d.peers), closed: make(chan struct{}), done: make(chan struct{}),
	}
	go h.read()
	return h
}

// Accept implements transport.Listener.
func (h *hub) Accept(ctx context.Context) (transport.Conn, error) {
	for {
		select {
		case <-h.closed:
			return nil, &transport.Error{Op: "accept", Err: h.err}
		default:
		}
		select {
		case p := <-h.accept:
			if p.err() == nil {
				return p, nil
			}
		case <-h.closed:
		case <-ctx.Done():
			return nil, &transport.Error{Op: "accept", Err: ctx.Err()}
		}
	}
}

// Addr implements transport.Listener.
func (h *hub) Addr() net.Addr { return h.conn.LocalAddr() }

// Close implements transport.Listener.
func (h *hub) Close() error {
	h.shut(transport.ErrClosed)
	for {
		select {
		case p := <-h.accept:
			p.Close()
			continue
		default:
		}
		break
	}
	if h.release() {
		<-h.done
	}
	return nil
}

// shut makes the hub take no new peers.
func (h *hub) shut(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = err
		close(h.closed)
	}
}

// release closes the socket if nobody needs it, and reports that.
func (h *hub) release() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := h.err != nil && len(h.peers) == 0
	if last {
		h.conn.Close()
	}
	return last
}

func (h *hub) read() {
	defer close(h.done)
	memory := make([]byte, batch*udpsock.ReadSize)
	packets := make([]udpsock.Packet, batch)
	for failures := 0; ; {
		for i := range packets {
			packets[i] = udpsock.Packet{Data: memory[i*udpsock.ReadSize:][:udpsock.ReadSize]}
		}
		n, err := h.conn.Read(packets)
		if err == nil {
			failures = 0
			h.deliver(packets[:n], time.Now())
		} else if failures++; errors.Is(err, net.ErrClosed) || failures > maxFailures {
			h.fail(err)
			return
		}
	}
}

// fail ends everything because the socket has failed or was closed.
func (h *hub) fail(err error) {
	h.shut(err)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.peers {
		h.drop(p, err)
	}
}

// deliver gives datagrams to those that they come from.
func (h *hub) deliver(packets []udpsock.Packet, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range packets {
		if packets[i].Addr == nil {
			continue // nobody to answer
		}
		key := keyOf(packets[i].Addr)
		for d := range packets[i].Segments {
			p := h.peers[key]
			if p == nil {
				p = h.meet(key, packets[i].Addr)
			}
			if p != nil {
				h.queue(p, datagram{now, packets[i].Addr, bytes.Clone(d)})
			}
		}
	}
}

type datagram struct {
	at   time.Time // when it was read
	from net.Addr  // perhaps another address of this host's than the peer has asked at before
	data []byte
}

func (h *hub) queue(p *peer, d datagram) {
	h.byAge.MoveToBack(p.age)
	size := len(d.data) + overhead
	if h.queued+size > maxQueued || p.queued+size > maxQueuedPeer {
		if !p.lost {
			h.device.log.Warn("datagrams come faster than they are taken: some are lost", "protocol", h.device.info.Protocol, "peer", p.addr)
		}
		p.lost = true
		return
	}
	h.queued += size
	p.queued += size
	p.waiting = append(p.waiting, d)
	p.signal()
}

// meet returns a new peer, in the place of the one that has been silent for the longest
// time if there are too many. If all of them have an image on its way, or the Listener
// is closed, it is nil.
func (h *hub) meet(key addrKey, addr net.Addr) *peer {
	if h.err != nil {
		return nil
	}
	if len(h.peers) >= h.device.peers {
		e := h.byAge.Front()
		for ; e != nil; e = e.Next() {
			if p := e.Value.(*peer); !p.busy && len(p.waiting) == 0 {
				h.drop(p, errForgotten)
				break
			}
		}
		if e == nil {
			if !h.refused {
				h.device.log.Warn("too many peers at once: others are not heard (MaxPeers)", "protocol", h.device.info.Protocol, "peers", len(h.peers))
			}
			h.refused = true
			return nil
		}
	}
	p := &peer{hub: h, key: key, addr: addr, wake: make(chan struct{}, 1)}
	p.life, p.end = context.WithCancel(context.Background())
	select {
	case h.accept <- p:
	default:
		return nil
	}
	p.age = h.byAge.PushBack(p)
	h.peers[key] = p
	return p
}

// drop ends a peer. The mutex is held.
func (h *hub) drop(p *peer, err error) {
	if p.ended != nil {
		return
	}
	p.ended = err
	h.queued -= p.queued
	p.waiting, p.queued = nil, 0
	h.byAge.Remove(p.age)
	delete(h.peers, p.key)
	p.signal()
}
