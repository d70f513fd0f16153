package transport

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/pixferry/pixferry/internal/sleep"
)

// A Server receives images and messages over any number of Listeners and Conns, of any protocols.
// Set its fields before its first use and do not change them then. To take images it needs a
// Handler, a Store or both.
type Server struct {
	// Handler sees each image after the whole of it was verified and before it is kept. If it
	// returns nil the image is committed and the sender gets its receipt; an error refuses the
	// image, and its text reaches the sender. A [RejectedError] in the error's chain says whether
	// trying again can help ([Reject]: it cannot). Any other error, and a panic, count as
	// retryable. Handlers of different images run at the same time.
	//
	// For an image that is kept the Handler has run at least once. It may run again for the same
	// ID after a refusal, a failed commit or a crash: use the ID as idempotency key.
	//
	// A panic is caught. The sender hears only that the Handler has failed; Hooks.Finished gets
	// the panic's value, and Logger its stack too. Without either, a panic leaves no trace here.
	//
	// The context does not end with the sender's Conn. It ends when the Handler returns, and when
	// Shutdown stops waiting.
	Handler func(ctx context.Context, in *Incoming) error
	// Streaming runs the Handler while the bytes arrive. The body can then be read once, in
	// order. It ends in io.EOF only after the whole image was verified; any other end is an
	// error, after which what was read may be wrong and must be discarded. A Handler that passes
	// the bytes on can still refuse the image if it passes on io.EOF only after its decision, or
	// its own error instead. A newer attempt of the sender ends the Handler's context and body,
	// and then calls the Handler again from the start. The Store buffers the image, so that a
	// slow Handler does not slow the sender.
	Streaming bool
	// Message takes messages; nil means that they are refused. Its error refuses the message, as
	// a Handler's does. It may keep m.Data. Its context ends when it returns and when Shutdown
	// stops waiting. It also ends with the Conn, except where the protocol can repeat a message;
	// there each message is still taken once.
	Message func(ctx context.Context, from Conn, m Message) error
	// Store keeps the images. Nil: they are in memory until the Handler returns, at most 256 MiB
	// of them together. Set a MemStore for another limit or a DirStore for none.
	Store Store
	// Limits bound what is taken.
	Limits Limits
	// Logger gets records about Conns, images and failures; nil is silent.
	Logger *slog.Logger
	// Hooks are told what happens.
	Hooks Hooks

	init    sync.Once
	initErr error
	limits  Limits
	store   Store
	log     *slog.Logger
	hooks   hookQueue
	life    context.Context // of Handlers
	endLife context.CancelCauseFunc
	working crew            // assemblies, Handlers and Message calls
	serving crew            // ServeConn calls
	down    context.Context // ends with the first Shutdown that ends
	endDown context.CancelFunc

	mu         sync.Mutex
	closing    bool
	serves     map[*serve]struct{}
	assemblies map[ID]*assembly
	floors     map[uint64]uint64 // by sender instance: counters below are finished
}

// serve is a running call of Serve or ServeConn.
type serve struct {
	stop  context.CancelCauseFunc
	close func() error
	conn  bool
}

func (s *Server) start() error {
	s.init.Do(func() {
		s.limits = s.Limits.withDefaults()
		s.log = cmp.Or(s.Logger, slog.New(slog.DiscardHandler))
		s.hooks.lost = s.Hooks.Dropped
		s.store = s.Store
		if s.store == nil {
			s.store = &MemStore{MaxReceipts: s.limits.MaxReceipts, receiptsOnly: true}
		}
		if s.Store == nil && s.Handler == nil && s.Message == nil {
			s.initErr = configError("transport.Server: set Store (for example &transport.DirStore{Dir: \"in\"}) or Handler")
		}
		s.life, s.endLife = context.WithCancelCause(context.Background())
		s.down, s.endDown = context.WithCancel(context.Background())
		s.serves = make(map[*serve]struct{})
		s.assemblies = make(map[ID]*assembly)
		s.floors = make(map[uint64]uint64)
	})
	return s.initErr
}

// enter registers a call of Serve or ServeConn, unless the Server shuts down.
func (s *Server) enter(v *serve) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.serves[v] = struct{}{}
	if v.conn {
		s.serving.add()
	}
	return true
}

func (s *Server) leave(v *serve) {
	s.mu.Lock()
	delete(s.serves, v)
	s.mu.Unlock()
	if v.conn {
		s.serving.done()
	}
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// Serve accepts Conns from l and serves each of them, until Shutdown, the end of the context or a
// failure of l. It closes l. Temporary failures to accept, such as too many open files, are
// waited out. If the Store cannot work at all, Serve returns its error at once: it asks for the
// receipt of the zero ID.
//
// After the start of Shutdown it returns ErrServerClosed, but only when Shutdown has ended, so
// that the Store may be closed after it. When the context ends it closes the Conns that it
// accepted, waits for them and returns the context's error; running Handlers go on, so call
// Shutdown before closing the Store then too. When l fails it returns the error of l, and the
// Conns live on.
func (s *Server) Serve(ctx context.Context, l Listener) error {
	err := s.accept(ctx, l)
	if s.isClosing() {
		<-s.down.Done()
		return ErrServerClosed
	}
	return err
}

func (s *Server) accept(ctx context.Context, l Listener) error {
	defer l.Close()
	if err := s.start(); err != nil {
		return err
	}
	if err := s.probe(ctx); err != nil {
		return err
	}
	accepting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	v := &serve{stop: stop, close: l.Close}
	if !s.enter(v) {
		return ErrServerClosed
	}
	defer s.leave(v)
	s.log.Info("serving", "addr", l.Addr())

	var conns sync.WaitGroup
	for delay := time.Duration(0); ; {
		c, err := l.Accept(accepting)
		switch {
		case err == nil:
			delay = 0
			conns.Go(func() { _ = s.ServeConn(ctx, c) }) // hooks and log hear of it
		case s.isClosing():
			return err
		case ctx.Err() != nil:
			l.Close()
			conns.Wait()
			return ctx.Err()
		case isTemporary(err):
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.log.Warn("cannot accept at the moment", "err", err, "again in", delay)
			_ = sleep.For(accepting, delay)
		default:
			return err
		}
	}
}

// probe finds a Store that cannot work at all before the first image does.
func (s *Server) probe(ctx context.Context) error {
	_, _, err := s.store.Receipt(ctx, ID{})
	return err
}

// isTemporary also knows the want of memory for a connection, which package net takes for the end.
func isTemporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary() || errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ENOBUFS)
}

// ServeConn serves one Conn, accepted or dialled, until it ends, and closes it. It returns nil
// after an orderly end by the peer, ErrServerClosed after Shutdown, and an error that matches
// errors.ErrUnsupported if the protocol cannot serve.
func (s *Server) ServeConn(ctx context.Context, c Conn) error {
	defer c.Close()
	if err := s.start(); err != nil {
		return err
	}
	if err := s.probe(ctx); errors.Is(err, ErrConfig) {
		s.log.Error("the store cannot work", "err", err)
		return err // what may pass is for the sender of an image to hear
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	v := &serve{stop: stop, close: c.Close, conn: true}
	in := &Inbox{srv: s, conn: c, info: c.Info(), arrivals: make(map[*Arrival]bool)}
	if !s.enter(v) {
		stop(ErrServerClosed)
		_ = c.Serve(ctx, in) // so that Close tells the peer of the program's end, and it dials again
		in.close(ErrServerClosed)
		return ErrServerClosed
	}
	defer s.leave(v)

	log := s.log.With("peer", in.info.Peer, "protocol", in.info.Protocol)
	log.Info("conn opened")
	if f := s.Hooks.ConnOpened; f != nil {
		s.hooks.add(func() { f(in.info) })
	}
	err := c.Serve(ctx, in)
	if err != nil && s.isClosing() && errors.Is(context.Cause(ctx), ErrServerClosed) {
		err = ErrServerClosed
	}
	in.close(err)
	c.Close()
	log.Info("conn closed", "err", err)
	if f := s.Hooks.ConnClosed; f != nil {
		s.hooks.add(func() { f(in.info, err) })
	}
	return err
}

// Shutdown ends the Server in good order: it closes the Listeners, refuses new images with
// ReasonGoingAway (retryable), waits for those on their way in, for Handlers and for Message
// calls, and closes the Conns. Serve and ServeConn return ErrServerClosed. Peers that have
// dialled with the native protocol hear that the program goes away: while calls run they dial
// again for the idle time, and continue with a program that is started meanwhile.
//
// If the context ends first, Shutdown returns its error after three seconds at most. Incomplete
// images are given up, and kept for a resume if the sender can resume; the contexts of Handlers
// end, and the Conns are closed. Handlers that ignore their context are left running, and calls
// of the Store after another second.
//
// A Handler must not call Shutdown, which would wait for it; let it start a goroutine that does.
// At its end Shutdown waits for hooks, at most a second. The Server cannot be used again.
func (s *Server) Shutdown(ctx context.Context) error {
	_ = s.start()
	defer s.endDown()
	s.mu.Lock()
	s.closing = true
	serves := slices.Collect(maps.Keys(s.serves))
	s.mu.Unlock()
	for _, v := range serves {
		if !v.conn {
			v.stop(ErrServerClosed)
			v.close()
		}
	}
	err := s.working.wait(ctx)
	if err != nil {
		s.abandon()
	}
	// A Conn's Serve hands the last answers over before it returns.
	for _, v := range serves {
		v.stop(ErrServerClosed)
	}
	if err == nil {
		err = s.serving.wait(ctx)
	}
	closing := forAll(serves, func(v *serve) { v.close() })
	if err == nil {
		_ = closing.wait(context.Background())
	} else {
		closing.waitLast()
	}
	s.endLife(ErrServerClosed)
	s.hooks.telling.waitLast()
	return err
}

// lastTime is how long Shutdown waits for hooks, and if its context has ended for calls of the Store:
// those that hang are left behind.
const lastTime = time.Second

// abandon gives up what is not complete and hurries the Handlers.
func (s *Server) abandon() {
	s.endLife(ErrServerClosed)
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.assemblies))
	s.mu.Unlock()
	forAll(all, func(m *assembly) { m.abandon(errGoingAway()) }).waitLast()
}

// forAll runs f for each at once.
func forAll[T any](all []T, f func(T)) *crew {
	c := new(crew)
	for _, v := range all {
		c.add()
		go func() {
			defer c.done()
			f(v)
		}()
	}
	return c
}

// waitLast waits for lastTime at most.
func (c *crew) waitLast() {
	ctx, cancel := context.WithTimeout(context.Background(), lastTime)
	defer cancel()
	_ = c.wait(ctx)
}

// errGoingAway asks for a pause, or the attempts of a Retry would be over before the
// shutdown is.
func errGoingAway() *RejectedError {
	e := later(ReasonGoingAway, "the receiver shuts down: try again later")
	e.After = 2 * time.Second
	return e
}
