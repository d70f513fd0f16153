package main

import (
	"context"
	"fmt"

	"github.com/pixferry/pixferry/transport"
)

// ferry is pixferry: a Server with a Store, and a Conn to it.
type ferry struct {
	srv    *transport.Server
	conn   transport.Conn
	served chan error
	level  transport.Level // that receipts have
}

// openFerry serves what listen takes and dials it with what dial makes of its address.
func openFerry(ctx context.Context, store transport.Store, listen transport.Transport, dial func(addr string) transport.Transport) (*ferry, error) {
	l, err := listen.Listen(ctx)
	if err != nil {
		return nil, err
	}
	f := &ferry{srv: &transport.Server{Store: store}, served: make(chan error, 1), level: transport.Kept}
	go func() { f.served <- f.srv.Serve(context.WithoutCancel(ctx), l) }()
	if f.conn, err = dial(l.Addr().String()).Dial(ctx); err != nil {
		f.stop()
		return nil, err
	}
	return f, nil
}

func (f *ferry) do(ctx context.Context, w work) error {
	img := &transport.Image{Name: "image", MediaType: "image/jpeg", Body: transport.Bytes(image(w.size))}
	return f.send(ctx, img, w)
}

// send sends an image as often as the work says.
func (f *ferry) send(ctx context.Context, img *transport.Image, w work) error {
	if w.at == 1 {
		return f.sendEach(ctx, img, w)
	}
	kept := 0
	images := func(yield func(*transport.Image, error) bool) {
		for range w.images {
			if !yield(img, nil) {
				return
			}
		}
	}
	err := transport.SendAll(ctx, f.conn, images, &transport.SendAllOptions{
		Concurrency: w.at,
		Each: func(_ *transport.Image, r transport.Receipt, err error) {
			if err == nil && r.Level == f.level && r.Bytes == w.size {
				kept++
			}
		},
	})
	if err == nil && kept != w.images {
		err = fmt.Errorf("%d of %d images are kept", kept, w.images)
	}
	return err
}

// sendEach sends one image after the other.
func (f *ferry) sendEach(ctx context.Context, img *transport.Image, w work) error {
	for range w.images {
		r, err := f.conn.Send(ctx, img, nil)
		if err != nil {
			return err
		}
		if r.Level != f.level || r.Bytes != w.size {
			return fmt.Errorf("the receipt says %v and %d bytes", r.Level, r.Bytes)
		}
	}
	return nil
}

func (f *ferry) close() {
	f.conn.Close()
	f.stop()
}

func (f *ferry) stop() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f.srv.Shutdown(ctx)
	<-f.served
}
