package sim

import (
	"crypto/sha256"
	"errors"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/arq/cc"
	"github.com/pixferry/pixferry/internal/wire"
)

func contentDigest(p []byte) chunk.Digest {
	sum := sha256.Sum256(p)
	d, _ := chunk.NewDigest(2, sum[:])
	return d
}

// sender is a program that sends images, with the journal that survives its crashes.
type sender struct {
	w   *world
	ep  *endpoint
	cfg arq.Config
	r   *receiver // to look whether a receipt tells the truth

	images  []*image
	session *session
	up      bool
	lives   int
	cubic   bool
	wait    bool  // for ACCEPT before sending
	resent  int64 // over all sessions
}

// image is one delivery. Attempt and done are in the journal.
type image struct {
	id      [16]byte
	size    int64
	flags   uint8
	kind    uint8
	attempt uint32
	done    bool

	active   bool
	handle   uint16
	supplied int64
	ready    bool // ACCEPT is answered or not waited for
	runs     uint32
	held     chunk.Ranges // agreed blocks, in bytes
	pieces   int
}

func (s *sender) boot() {
	if s.up {
		return
	}
	s.up = true
	s.lives++
	s.ep.down = false
	s.dial()
}

func (s *sender) crash() {
	s.w.log("a: crash")
	s.gone()
	s.up = false
	s.lives++
	s.ep.crash()
}

// gone notes that the session is over: nothing is on its way any more.
func (s *sender) gone() {
	if s.session != nil {
		s.resent += s.session.Stats().ResentBytes
		s.session.remove()
	}
	s.session = nil
	for _, im := range s.images {
		im.active = false
	}
}

func (s *sender) later(d time.Duration, f func()) {
	life := s.lives
	s.w.clock.After(s.w.upTo(d), func() {
		if s.lives == life {
			f()
		}
	})
}

func (s *sender) done() bool {
	for _, im := range s.images {
		if !im.done {
			return false
		}
	}
	return true
}

func (s *sender) dial() {
	if s.session != nil || s.done() {
		return
	}
	cfg := s.cfg
	cfg.LocalCID, cfg.RemoteCID = s.w.cid(), s.w.cid()
	if s.cubic {
		cfg.Controller = new(cc.Cubic)
	}
	var ss *session
	ss = s.ep.add(cfg, func(ev arq.Event) {
		if s.session == ss {
			s.event(ev)
		}
	})
	s.session = ss
	s.w.log("a: session %x begins", cfg.LocalCID)
	for _, im := range s.images {
		s.offer(im)
	}
	ss.pump()
}

func (s *sender) offer(im *image) {
	if im.done || im.active || s.session == nil {
		return
	}
	im.attempt++
	im.active, im.supplied, im.held, im.runs, im.pieces = true, 0, chunk.Ranges{}, 0, 0
	im.ready = im.flags&wire.OfferResume == 0 || !s.wait
	h, err := s.session.Offer(&wire.Offer{ID: im.id, Attempt: im.attempt, Size: im.size, Kind: im.kind, Flags: im.flags, Algorithm: 2})
	if err != nil {
		s.w.fail("a: offer: %v", err)
	}
	im.handle = h
}

func (s *sender) find(h uint16) *image {
	for _, im := range s.images {
		if im.active && im.handle == h {
			return im
		}
	}
	return nil
}

func (s *sender) event(ev arq.Event) {
	im := s.find(ev.Handle)
	switch ev.Kind {
	case arq.Wanted:
		s.supply(im)
	case arq.Released:
		if im != nil {
			im.pieces -= len(ev.Data)
		}
	case arq.Accepted:
		s.accepted(im, ev.Accept)
	case arq.Receipted:
		if im.done {
			s.w.fail("a: image %x completed twice", im.id[15])
		}
		if size, ok := s.r.committed[im.id]; !ok || size != im.size || ev.Receipt.Bytes != size {
			s.w.fail("a: receipt for image %x, which the receiver does not keep", im.id[15])
		}
		im.done, im.active = true, false
		s.w.log("a: image %x done, attempt %d", im.id[15], im.attempt)
	case arq.Rejected:
		im.active = false
		s.w.log("a: image %x rejected, reason %d %s", im.id[15], ev.Reject.Reason, ev.Reject.Text)
		if ev.Reject.Flags&wire.RejectRetryable == 0 {
			s.w.fail("a: rejected for good: %+v", ev.Reject)
		}
		s.later(time.Second, func() {
			if s.offer(im); s.session != nil {
				s.session.pump()
			}
		})
	case arq.Closed:
		if c := (*arq.CloseError)(nil); errors.As(ev.Err, &c) && c.Code != wire.CodeIdle {
			s.w.fail("a: session closed: %v", ev.Err)
		}
		s.w.log("a: session ends: %v", ev.Err)
		s.gone()
		s.later(time.Second, s.dial)
	}
}

// accepted compares held blocks, after a while.
func (s *sender) accepted(im *image, f *wire.Accept) {
	session := s.session
	s.later(20*time.Millisecond, func() {
		if s.session != session || !im.active {
			return
		}
		im.runs += uint32(f.Count())
		answer := &wire.Resume{First: f.First, Count: uint16(f.Count()), Agree: make([]byte, (f.Count()+7)/8)}
		for i := range f.Count() {
			b := chunk.BlockRange(int64(f.First)+int64(i), im.size)
			p := make([]byte, b.Len())
			bytesAt(p, uint64(im.id[15]), b.Start)
			n := int(f.DigestLength)
			if string(contentDigest(p).Append(nil)) == string(f.Digests[i*n:(i+1)*n]) {
				answer.Agree[i/8] |= 1 << (i % 8)
				im.held.Add(b.Start, b.End)
			}
		}
		if f.Count() > 0 {
			if err := session.Resume(im.handle, answer); err != nil {
				s.w.fail("a: resume: %v", err)
			}
		}
		if im.runs == f.Held {
			im.ready = true
			s.supply(im)
		}
		session.pump()
	})
}

func (s *sender) supply(im *image) {
	if im == nil || !im.ready {
		return
	}
	for s.session.Want(im.handle) > 0 && im.supplied < im.size {
		g, ok := im.held.NextGap(im.supplied, im.size)
		if !ok {
			im.supplied = im.size
			break
		}
		p := make([]byte, min(g.Len(), 1+s.w.rand.Int64N(64<<10)))
		bytesAt(p, uint64(im.id[15]), g.Start)
		if err := s.session.Supply(im.handle, g.Start, p); err != nil {
			s.w.fail("a: supply: %v", err)
		}
		im.supplied = g.Start + int64(len(p))
		im.pieces += len(p)
	}
	if _, more := im.held.NextGap(im.supplied, im.size); !more {
		if err := s.session.Finish(im.handle, im.size, digestOf(uint64(im.id[15]), im.size)); err != nil && !errors.Is(err, arq.ErrOrder) {
			s.w.fail("a: finish: %v", err)
		}
	}
}
