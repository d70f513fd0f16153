package udpx

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/internal/timers"
	"github.com/pixferry/pixferry/internal/udpsock"
	"github.com/pixferry/pixferry/internal/wire"
)

// maxUnproven is how many sessions may be there whose peer has not yet proven its
// address. One more ends the oldest, so that a flood of false addresses, which would
// fill any table, keeps out only who takes longer than it needs to fill this one.
const maxUnproven = 512

// defaultSessions is how many sessions a socket has at once.
const defaultSessions = 1 << 16

// socket carries sessions on one PacketConn: one goroutine reads, one writes and
// keeps the time. It lives as long as something refers to it.
type socket struct {
	conn   *udpsock.Conn
	owned  bool          // close it at the end
	sizes  []int         // to probe for
	peers  int           // sessions at once
	wake   chan struct{} // has a token when the writer is to look again
	writer *writer
	read   chan struct{} // closed when the reader has ended
	done   chan struct{} // closed when both goroutines have

	mu       sync.Mutex
	refs     int   // of carriers that run and listeners; 0: it ends
	err      error // why it can do no more
	listener *listener
	queue    []*carrier            // to be polled
	timers   timers.Heap[*carrier] // when sessions want to be polled
	asleep   bool                  // the writer's goroutine waits for wake
	alarm    time.Time             // or for this, if it is not zero
	sessions sessions
}

// sessions finds the session that a message is for. Those that have ended stay for a
// while to answer a peer that has not heard.
type sessions struct {
	byID     map[wire.ConnID]*carrier // by this side's ID
	byFirst  map[firstID]*carrier     // by what the peer wrote to before it knew that
	byRemote map[wire.ConnID]*carrier // by the peer's ID, which a RESET names
	unproven list.List                // of *carrier, oldest first
}

type firstID struct {
	from addrKey
	id   wire.ConnID
}

// addrKey is a comparable net.Addr.
type addrKey struct {
	udp  netip.AddrPort
	name string // of other networks
}

func (k addrKey) sameHost(other addrKey) bool {
	return k.udp.IsValid() && k.udp.Addr() == other.udp.Addr()
}

func keyOf(a net.Addr) addrKey {
	if with, ok := a.(*udpsock.Addr); ok {
		a = with.UDPAddr
	}
	if u, ok := a.(*net.UDPAddr); ok {
		ap := u.AddrPort()
		return addrKey{udp: netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())}
	}
	return addrKey{name: a.String()}
}

// startSocket returns a running socket with one reference.
func startSocket(conn *udpsock.Conn, owned bool, sizes []int, peers int) *socket {
	s := &socket{
		conn: conn, owned: owned, sizes: sizes, peers: peers, refs: 1,
		wake: make(chan struct{}, 1), read: make(chan struct{}), done: make(chan struct{}),
		sessions: sessions{
			byID:     make(map[wire.ConnID]*carrier),
			byFirst:  make(map[firstID]*carrier),
			byRemote: make(map[wire.ConnID]*carrier),
		},
	}
	if conn.Fragments() {
		s.sizes = nil
	}
	s.writer = newWriter(s)
	go s.runReader()
	go s.writer.run()
	return s
}

// dialled reports whether the socket is one session's own.
func (s *socket) dialled() bool { return s.owned && s.conn.Connected() }

// hold adds a reference. It returns false if the socket is ending.
func (s *socket) hold() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refs == 0 {
		return false, nil
	}
	if s.err == nil {
		s.refs++
	}
	return true, s.err
}

// release gives a reference up. With the last one the socket begins to end, which it
// reports; done is closed when it has.
func (s *socket) release() (last bool) {
	s.mu.Lock()
	s.refs--
	last = s.refs == 0
	s.mu.Unlock()
	if last {
		if s.owned {
			s.conn.Close()
		} else {
			s.conn.Interrupt()
		}
		s.signal()
	}
	return last
}

func (s *socket) ending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refs == 0
}

// unlisten makes room for another Listener.
func (s *socket) unlisten() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listener = nil
}

// signal makes the writer look again.
func (s *socket) signal() { notify(s.wake) }

// notify leaves a token in c, unless there is one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// fail ends all that the socket carries because it can do no more.
func (s *socket) fail(err error) {
	s.mu.Lock()
	s.err = err
	l := s.listener
	s.mu.Unlock()
	s.failSessions(err)
	if l != nil {
		l.fail(err)
	}
}

func (s *socket) failSessions(err error) {
	s.mu.Lock()
	all := make([]*session.Session, 0, len(s.sessions.byID))
	for _, c := range s.sessions.byID {
		if c.session != nil {
			all = append(all, c.session)
		}
	}
	s.mu.Unlock()
	for _, ss := range all {
		ss.Fail(err)
	}
}

// add enters a carrier whose session begins. It returns the session that has to make
// room for it, if any, and why the socket has failed in the meantime.
func (s *socket) add(c *carrier, ss *session.Session) (evicted *session.Session, failed error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.session, c.id = ss, ss.CID()
	s.sessions.byID[c.id] = c
	if c.first != (firstID{}) {
		s.sessions.byFirst[c.first] = c
		if u := &s.sessions.unproven; u.Len() >= maxUnproven {
			evicted = u.Remove(u.Front()).(*carrier).session // whose farewell, too, is not for an address that is not proven
		}
		c.unproven, c.begun = s.sessions.unproven.PushBack(c), time.Now()
	}
	s.enqueue(c)
	return evicted, s.err
}

// proven notes that the peer has the address that it claims, or is gone. The mutex is
// held.
func (s *socket) proven(c *carrier) {
	if c.unproven != nil {
		s.sessions.unproven.Remove(c.unproven)
		c.unproven = nil
	}
}

// leave lets go of a carrier's session, which has ended. What it has said last is
// kept for the peer.
func (s *socket) leave(c *carrier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.session = nil
	if c.unproven != nil {
		c.farewell = nil // it may be for somebody else
		s.proven(c)
	}
	if c.farewell == nil {
		s.remove(c)
	} else {
		s.timers.Set(&c.timer, time.Now().Add(farewellTime))
	}
}

// remove forgets a carrier. The mutex is held.
func (s *socket) remove(c *carrier) {
	t := &s.sessions
	delete(t.byID, c.id)
	if t.byFirst[c.first] == c {
		delete(t.byFirst, c.first)
	}
	if t.byRemote[c.remote] == c {
		delete(t.byRemote, c.remote)
	}
	s.timers.Set(&c.timer, time.Time{})
}

// find returns the carrier of a message that went to id, nil for none, and its session,
// nil if that has ended.
func (s *socket) find(id wire.ConnID, long bool, from addrKey) (*carrier, *session.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.sessions.byID[id]
	if c == nil && long {
		c = s.sessions.byFirst[firstID{from, id}]
	}
	if c == nil {
		return nil, nil
	}
	return c, c.session
}

// findRemote returns the session that sends to id, and its carrier.
func (s *socket) findRemote(id wire.ConnID) (*carrier, *session.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.sessions.byRemote[id]; c != nil {
		return c, c.session
	}
	return nil, nil
}
