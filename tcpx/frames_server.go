package tcpx

import (
	"context"
	"fmt"
	"slices"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/transport"
)

// framesServer is the serving side of one connection.
type framesServer struct {
	f      *Frames
	r      *deviceReader
	in     *transport.Inbox
	source FrameSource
}

func (s *framesServer) serve(ctx context.Context) error {
	text, err := s.r.text(ctx, splitSource)
	if err != nil {
		return orderlyEnd(err)
	}
	if err := s.source.Parse([]byte(text)); err != nil {
		return err
	}
	if len(s.f.Formats) > 0 && !slices.Contains(s.f.Formats, s.source.Format) {
		return fmt.Errorf("the format %.80q is not among those accepted: add it to Formats", s.source.Format)
	}
	if err := s.answer(ctx); err != nil {
		return err
	}
	for first := true; ; first = false {
		if !first {
			next, err := s.r.text(ctx, splitNext)
			if err != nil {
				return orderlyEnd(err) // over was lost; all images are whole
			}
			if next == frameOver {
				return nil
			}
		}
		header, err := s.r.text(ctx, splitHeader)
		switch {
		case err != nil && first:
			return orderlyEnd(err)
		case err != nil:
			return fmt.Errorf("no image came after %q: %w", frameNext, noEOF(err))
		case header == frameOver: // of a client that has changed its mind
			return nil
		}
		if err := s.image(ctx, header); err != nil {
			return err
		}
	}
}

func (s *framesServer) image(ctx context.Context, text string) error {
	var h FrameHeader
	if err := h.Parse([]byte(text)); err != nil {
		return err
	}
	img := transport.Image{Name: h.Name, Source: s.source.Format, Meta: map[string]string{frameDir: s.source.Dir}}
	a, err := s.in.Offer(ctx, transport.Offer{Image: img, Size: h.Size})
	if err != nil {
		return err
	}
	if err := s.answer(ctx); err != nil {
		a.Abort(err)
		return err
	}
	if err := s.r.image(ctx, a, h.Size, nil); err != nil {
		return err
	}
	if pause := s.f.pause(); h.Size == 0 && pause > 0 { // or a client with one receive for one answer takes two for none
		_ = s.r.fill(ctx, pause)
		if err := ctx.Err(); err != nil {
			a.Abort(err)
			return err
		}
	}
	// A client waits for the answer. More bytes than were announced mean that the
	// name went on after a pause, and that these are not the image's.
	if _, err := splitNext(s.r.ahead, false); err != nil {
		err = &transport.RejectedError{Reason: transport.ReasonMalformed, Retryable: true, Text: fmt.Sprintf("more than the %d bytes that were announced came: %v", h.Size, err)}
		a.Abort(err)
		return err
	}
	if _, err := a.Finish(ctx, -1, chunk.Digest{}); err != nil {
		return err
	}
	return s.answer(context.WithoutCancel(ctx))
}

func (s *framesServer) answer(ctx context.Context) error { return s.r.write(ctx, []byte(frameOK)) }
