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
	// Send returns the options for an image, such as an ID from a journal. It is called in the
	// order of the images, one call at a time. A nil Send, and a nil result, mean all defaults.
	Send func(img *Image) *SendOptions
	// CarryOn sends the other images although one has failed. Without it the first failure
	// cancels the rest.
	CarryOn bool
	// Each is called with the result of every image that was begun, one call at a time, in the
	// order in which they end. A slow one slows the sending. It may run while the sequence and
	// Send run.
	Each func(img *Image, r Receipt, err error)
}

// SendAll sends the images of a sequence through conn, several at once. It takes an image from
// the sequence only when there is room to send it, so that the sequence may be endless, and may
// open, draw or fetch each image late. A sequence that blocks must watch the context itself.
//
// It returns nil if all were sent, else the first error. With CarryOn it returns the first
// hundred errors joined, and the number of others, which only Each gets. Each error names its
// image. An error of the sequence, the end of the context and the end of the Conn stop it, with
// CarryOn too. All transfers are over when SendAll returns.
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
