package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"golang.org/x/sync/errgroup"
)

// SendAllOptions are the options of [SendAll]; nil means all defaults.
type SendAllOptions struct {
	// Concurrency bounds the transfers at once; 0 means [Info].Concurrency.
	Concurrency int
	// Send gives the options of each image, such as an ID from a journal. It
	// is called in the order of the images, one at a time; nil, and a nil
	// result, mean all defaults.
	Send func(img *Image) *SendOptions
	// CarryOn sends the other images although one failed. Without it the first
	// failure cancels the rest.
	CarryOn bool
	// Each hears what became of each image that was begun, one call at a time
	// and in the order in which they end. A slow one slows the sending. It may run at the
	// same time as the sequence and Send.
	Each func(img *Image, r Receipt, err error)
}

// SendAll sends the images of a sequence through conn, several at once. An
// image is taken from the sequence only when it can be sent at once, so that
// the sequence may be endless and may open, draw or fetch each image late.
//
// It returns nil if all were sent, else the first error, or with CarryOn the first
// hundred joined and the number of others, of which Each hears; each names its image. The sequence's own error ends it, and so
// do the ends of the context and of the Conn, with CarryOn too. A sequence that
// blocks must watch the context itself. All transfers are over when SendAll
// returns.
func SendAll(ctx context.Context, conn Conn, images iter.Seq2[*Image, error], o *SendAllOptions) error {
	if o == nil {
		o = &SendAllOptions{}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s := &sendAll{SendAllOptions: o, ctx: ctx, conn: conn}
	group, sending := errgroup.WithContext(ctx)
	slots := make(chan struct{}, max(1, cmp.Or(o.Concurrency, conn.Info().Concurrency)))
	slots <- struct{}{}
	cut := false
	for img, err := range images {
		if err == nil && img == nil {
			err = configError("the sequence has yielded no image and no error")
		}
		if err != nil {
			group.Go(func() error {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.failed(err, true)
			})
			break
		}
		var so *SendOptions
		if o.Send != nil {
			so = o.Send(img)
		}
		group.Go(func() error {
			err := s.send(sending, img, so)
			if err == nil { // else nothing more is taken
				<-slots
			}
			return err
		})
		select {
		case slots <- struct{}{}:
		case <-sending.Done():
		}
		if cut = sending.Err() != nil; cut {
			break
		}
	}
	err := s.result(group.Wait())
	if ended := ctx.Err(); cut && ended != nil && !errors.Is(err, ended) {
		err = errors.Join(err, ended)
	}
	return err
}

// maxFailures bounds the errors that SendAll remembers.
const maxFailures = 100

// sendAll is a call of SendAll.
type sendAll struct {
	*SendAllOptions
	ctx  context.Context
	conn Conn

	mu       sync.Mutex // of calls of Each too
	failures []error
	more     int // which are not among failures
}

// send sends one image, and returns what is to end everything.
func (s *sendAll) send(ctx context.Context, img *Image, o *SendOptions) error {
	r, err := s.conn.Send(ctx, img, o)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Each != nil {
		s.Each(img, r, err)
	}
	if err != nil {
		return s.failed(named(img, err), false)
	}
	return nil
}

// failed notes an error, the last one at any rate, and returns it if it is to end everything. The mutex is held.
func (s *sendAll) failed(err error, last bool) error {
	ends := !s.CarryOn || errors.Is(err, ErrClosed) || errors.Is(err, ErrPeerClosed) // not a body's net.ErrClosed
	if last || ends || s.ctx.Err() != nil || len(s.failures) < maxFailures {
		s.failures = append(s.failures, err)
	} else {
		s.more++
	}
	if ends {
		return err
	}
	return nil
}

// result is what SendAll returns, whose first error that ended everything is err.
func (s *sendAll) result(err error) error {
	if !s.CarryOn {
		return err
	}
	if s.more > 0 {
		s.failures = append(s.failures, fmt.Errorf("and %d more", s.more))
	}
	return errors.Join(s.failures...)
}

func named(img *Image, err error) error {
	if name := cmp.Or(img.Name, img.Body.Name()); name != "" {
		return fmt.Errorf("%s: %w", name, err)
	}
	return err
}
