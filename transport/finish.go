package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/pixferry/pixferry/chunk"
)

// finish runs without the turn, on a goroutine of its own or of one who waits for it: whole and verified; Handler; commit;
// receipt.
func (m *assembly) finish(size int64, want chunk.Digest) {
	var r Receipt
	img, digest, err := m.verify(size, want)
	if err == nil {
		err = m.handle(img, digest)
	}
	if err == nil {
		r, err = m.commit(img, digest)
	}
	<-m.turn
	defer m.release()
	if err == nil {
		m.end(r, nil)
		return
	}
	refusal := asRejected(err, ReasonDisk)
	m.fail(refusal, refusal.Retryable) // after a wrong digest too: the resume will find the block
}

// verify checks that every byte is here and right, and completes the metadata.
func (m *assembly) verify(size int64, want chunk.Digest) (*Image, chunk.Digest, error) {
	none := chunk.Digest{}
	if err := m.settle(nil); err != nil {
		return nil, none, err
	}
	known := m.bytes.Size()
	if size < 0 {
		if size = known; size < 0 {
			for r := range m.bytes.Held() {
				size = r.End
			}
			size = max(size, 0)
		}
	}
	if size < known {
		return nil, none, later(ReasonIncomplete, "the sender ended after %d of %d bytes", size, known)
	}
	if err := m.bytes.SetSize(size); err != nil {
		return nil, none, writeError(err)
	}
	digest, whole := m.bytes.Root()
	switch {
	case !whole:
		return nil, none, m.incomplete()
	case want.IsZero():
	case want.Algorithm() != digest.Algorithm() || want.Len() != digest.Len():
		return nil, none, reject(ReasonMalformed, "the offer announced a digest of algorithm %d, %d bytes, and one of algorithm %d, %d bytes, came",
			digest.Algorithm(), digest.Len(), want.Algorithm(), want.Len())
	case want != digest:
		return nil, none, later(ReasonDigest, "the sender says %v, these bytes have %v: send the image again", want, digest)
	}
	img, err := m.image()
	return img, digest, err
}

func (m *assembly) incomplete() error {
	var gaps []string
	for g := range m.bytes.Missing() {
		if len(gaps) == 4 {
			gaps = append(gaps, "...")
			break
		}
		gaps = append(gaps, fmt.Sprintf("%d to %d", g.Start, g.End-1))
	}
	return later(ReasonIncomplete, "%d of %d bytes are missing: %s", m.bytes.Size()-m.bytes.Covered(), m.bytes.Size(), strings.Join(gaps, ", "))
}

// image returns the metadata with nothing left empty that can be told from the
// first bytes, which are here.
func (m *assembly) image() (*Image, error) {
	img := m.offer.Image
	if img.MediaType == "" {
		head := make([]byte, min(sniffLen, m.bytes.Contiguous()))
		if err := chunk.ReadFullAt(m.part, head, 0); err != nil {
			return nil, err
		}
		img.MediaType = sniff(head)
	}
	if img.Name == "" {
		img.Name = defaultName(m.id, img.MediaType)
	}
	return &img, nil
}

// handle shows a verified image to the Handler.
func (m *assembly) handle(img *Image, digest chunk.Digest) error {
	s, size := m.srv, m.bytes.Size()
	switch {
	case s.Handler == nil:
		return nil
	case s.Streaming:
		if m.stream == nil {
			m.startStream(img)
		}
		m.stream.advance(size, io.EOF)
		<-m.stream.outcome.done
		m.stream.lent.takeBack()
		return s.refusal(m.stream.outcome.err)
	}
	l := &lent{r: m.part}
	shown := *img
	shown.Body = Content(io.NewSectionReader(l, 0, size), size)
	ctx, cancel := context.WithCancel(s.life)
	in := m.incoming(&shown, size, digest)
	o := s.call(func() error { return s.Handler(ctx, in) }, cancel)
	<-o.done
	l.takeBack()
	return s.refusal(o.err)
}

func (m *assembly) incoming(img *Image, size int64, digest chunk.Digest) *Incoming {
	in := m.owner.in
	return &Incoming{ID: m.id, Peer: in.info.Peer, Conn: in.conn, Image: img, Size: size, Digest: digest}
}

// refusal is what the sender hears of a Handler's or Message's error. After the end of the Server's patience these may
// return their context's error, or the cause, as which a Handler's body ends too.
func (s *Server) refusal(err error) error {
	if err != nil && s.life.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, ErrServerClosed)) {
		return errGoingAway()
	}
	return handlerError(err)
}

// commit makes the image durable. It goes on although Shutdown has lost its
// patience: the Handler has agreed.
func (m *assembly) commit(img *Image, digest chunk.Digest) (Receipt, error) {
	r := Receipt{ID: m.id, Level: Kept, Digest: digest, Bytes: m.bytes.Size(), Resent: m.resent, Reused: m.reused}
	ctx := context.WithoutCancel(m.srv.life)
	name, err := m.part.Commit(ctx, img, r)
	if err != nil {
		return Receipt{}, err
	}
	if name == "" { // another Server of the Store may have kept another image under this ID: the sender compares
		kept, known, err := m.srv.store.Receipt(ctx, m.id)
		switch {
		case err != nil:
			return Receipt{}, err
		case known && kept.Digest != digest:
			return kept.reused(), nil
		}
	}
	m.stored = name
	m.srv.log.Debug("image committed", "id", m.id, "as", name)
	return r, nil
}

// feedStream lets a streaming Handler have what is there without a gap. It
// starts when its metadata are known.
func (m *assembly) feedStream() error {
	s, ready := m.srv, m.bytes.Contiguous()
	if s.Handler == nil || !s.Streaming {
		return nil
	}
	if m.stream == nil {
		if ready < sniffLen {
			return nil
		}
		img, err := m.image()
		if err != nil {
			return err
		}
		m.startStream(img)
	}
	m.stream.advance(ready, nil)
	return nil
}

// startStream runs the streaming Handler, after the one of an older attempt has
// returned.
func (m *assembly) startStream(img *Image) {
	s, size, before := m.srv, m.bytes.Size(), m.last
	st := newStream(s.life, m.part)
	shown := *img
	shown.Body = openOnce(&OpenBody{Size: size, Reader: st})
	in := m.incoming(&shown, size, chunk.Digest{})
	s.working.add()
	st.outcome = s.call(func() error {
		if before != nil {
			select {
			case <-before.done:
			case <-st.ctx.Done():
				return context.Cause(st.ctx)
			}
		}
		return s.Handler(st.ctx, in)
	}, func() {
		st.cancel(nil)
		s.working.done()
	})
	m.stream, m.last = st, st.outcome
}

func (m *assembly) stopStream(err error) {
	if m.stream != nil {
		m.stream.stop(err)
		m.stream = nil
	}
}
