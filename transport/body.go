package transport

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/memory"
)

// A Body is where an image's bytes come from. Make one with [File], [Bytes], [Content], [Encode],
// [OpenFunc] or [Stream].
type Body struct {
	open func(ctx context.Context) (*OpenBody, error)
	name string
}

// An OpenBody is a Body that a Send or a Handler has opened, and closes. It has either a ReaderAt
// or a Reader; its own Read works with both.
type OpenBody struct {
	// Size is in bytes; -1: unknown before the end.
	Size int64
	// ReaderAt reads at any offset; nil if there is a Reader.
	ReaderAt io.ReaderAt
	// Reader reads once, in order; nil if there is a ReaderAt.
	Reader io.Reader

	check func() error
	close func() error
	pos   int64 // of Read
	once  bool  // what was read of Reader cannot be read again
}

// Open opens the body. The error of the zero Body matches ErrConfig.
func (b Body) Open(ctx context.Context) (*OpenBody, error) {
	if b.open == nil {
		return nil, configError("the image has no body: set Image.Body, for example to transport.File(path)")
	}
	return b.open(ctx)
}

// ReadAll opens the body and returns all of its bytes, which are the caller's, or none and an
// error. Of an image that comes in they are at most [Limits].MaxImage.
func (b Body) ReadAll(ctx context.Context) ([]byte, error) {
	o, err := b.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	if most := int64(math.MaxInt - bytes.MinRead); o.Size > most {
		return nil, &TooLargeError{What: "image", Size: o.Size, Max: most}
	}
	var all bytes.Buffer
	if o.ReaderAt != nil { // what a Reader will bring is only said so far
		all.Grow(int(o.Size) + bytes.MinRead)
	}
	if _, err := all.ReadFrom(o); err != nil {
		return nil, err
	}
	if err := o.Check(); err != nil {
		return nil, err
	}
	return all.Bytes(), nil
}

// noBody is a Body that cannot be opened.
func noBody(format string, a ...any) Body {
	err := configError("the image has no body: transport."+format, a...)
	return Body{open: func(context.Context) (*OpenBody, error) { return nil, err }}
}

// Name returns the base name of a File body, and "" for others.
func (b Body) Name() string { return b.name }

// Read reads the bytes once, in order. If Size is known it returns io.EOF only after exactly Size
// bytes; a source that ends before is chunk.ErrSourceShort, a Reader that goes on
// chunk.ErrSourceLong. It is for one goroutine at a time.
func (o *OpenBody) Read(p []byte) (n int, err error) {
	atEnd := o.Size >= 0 && o.pos >= o.Size
	switch {
	case len(p) == 0:
		return 0, nil
	case o.ReaderAt != nil && atEnd:
		return 0, io.EOF
	case atEnd:
		p = p[:1] // to see that there is nothing more
	case o.Size >= 0:
		p = p[:min(int64(len(p)), o.Size-o.pos)]
	}
	if o.ReaderAt != nil {
		n, err = o.ReaderAt.ReadAt(p, o.pos)
	} else {
		n, err = o.Reader.Read(p)
	}
	o.pos += int64(n)
	switch {
	case atEnd && n > 0:
		return 0, fmt.Errorf("%w (%d bytes)", chunk.ErrSourceLong, o.Size)
	case err == io.EOF && o.pos < o.Size:
		return n, fmt.Errorf("%w (%d of %d bytes)", chunk.ErrSourceShort, o.pos, o.Size)
	}
	return n, err
}

// Check returns an error that matches ErrSourceChanged if the source is known to have changed
// since Open. Call it after the last byte was read.
func (o *OpenBody) Check() error {
	if o.check == nil {
		return nil
	}
	return o.check()
}

// Close frees what Open took. It does not close the reader of a Stream.
func (o *OpenBody) Close() error {
	if o.close == nil {
		return nil
	}
	return o.close()
}

// File sends the named file, which each Send opens. The error matches ErrSourceChanged if the
// file's size or modification time changes meanwhile. A named pipe or a device is read to its
// end; what would need its bytes a second time fails with ErrBodyConsumed.
func File(path string) Body {
	if path == "" {
		return noBody("File was given an empty path")
	}
	return Body{name: filepath.Base(path), open: func(ctx context.Context) (*OpenBody, error) {
		f, before, err := openFile(ctx, path)
		if err != nil {
			return nil, err
		}
		if !before.Mode().IsRegular() {
			if before.IsDir() {
				f.Close()
				return nil, configError("%s is a directory: send its files one by one", path)
			}
			return &OpenBody{Size: -1, Reader: f, close: f.Close, once: true}, nil
		}
		check := func() error {
			now, err := f.Stat()
			if err == nil && (now.Size() != before.Size() || !now.ModTime().Equal(before.ModTime())) {
				err = fmt.Errorf("%s: %w", path, ErrSourceChanged)
			}
			return err
		}
		return &OpenBody{Size: before.Size(), ReaderAt: &checkedFile{f, check}, check: check, close: f.Close}, nil
	}}
}

// checkedFile says of a file that ends too early that it has changed.
type checkedFile struct {
	*os.File
	check func() error
}

func (f *checkedFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = cmp.Or(f.check(), err)
	}
	return n, err
}

// openFile opens a file. That may take for ever: a named pipe opens only when somebody writes to it, a file of a
// server that is away not before it is back. The wait ends with the context.
func openFile(ctx context.Context, path string) (*os.File, fs.FileInfo, error) {
	var f *os.File
	var info fs.FileInfo
	var err error
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		if f, err = os.Open(path); err != nil {
			return
		}
		if info, err = f.Stat(); err != nil {
			f.Close()
		}
	}()
	select {
	case <-opened:
		return f, info, err
	case <-ctx.Done():
		go func() { // it opens some day, or never
			if <-opened; err == nil {
				f.Close()
			}
		}()
		return nil, nil, ctx.Err()
	}
}

// Bytes sends b, which must not change while a Send uses it.
func Bytes(b []byte) Body { return Content(memory.NewReader(b), int64(len(b))) }

// Content sends the first size bytes of r, which must allow concurrent reads. It is read where
// needed and never held in memory as a whole.
func Content(r io.ReaderAt, size int64) Body {
	if r == nil || size < 0 {
		return noBody("Content was given a %T of %d bytes", r, size)
	}
	return Body{open: func(context.Context) (*OpenBody, error) {
		return &OpenBody{Size: size, ReaderAt: r}, nil
	}}
}

// Encode sends img as "image/jpeg" (quality 90) or "image/png", encoded once, when first needed.
func Encode(img image.Image, mediaType string) Body {
	if img == nil {
		return noBody("Encode was given no image")
	}
	encode := sync.OnceValues(func() ([]byte, error) {
		var buf bytes.Buffer
		var err error
		switch mediaType {
		case "image/jpeg":
			err = jpeg.Encode(&buf, img, &jpeg.Options{Quality: 90})
		case "image/png":
			err = png.Encode(&buf, img)
		default:
			err = configError("cannot encode %q: use image/jpeg or image/png, or encode it yourself and use transport.Bytes", mediaType)
		}
		return buf.Bytes(), err
	})
	return Body{open: func(context.Context) (*OpenBody, error) {
		b, err := encode()
		if err != nil {
			return nil, err
		}
		return &OpenBody{Size: int64(len(b)), ReaderAt: memory.NewReader(b)}, nil
	}}
}

// OpenFunc sends what open returns; size -1 means unknown. It is called for each Send, and again
// for a retry that needs bytes already read. The reader is closed at the end. An interrupted
// image is sent again from its start: use File or Content to skip blocks that the receiver holds.
func OpenFunc(open func(ctx context.Context) (r io.ReadCloser, size int64, err error)) Body {
	if open == nil {
		return noBody("OpenFunc was given no function")
	}
	return Body{open: func(ctx context.Context) (*OpenBody, error) {
		r, size, err := open(ctx)
		switch {
		case err != nil:
			return nil, err
		case r == nil:
			return nil, configError("the function of transport.OpenFunc returned no reader")
		case size < -1:
			r.Close()
			return nil, configError("the function of transport.OpenFunc returned a size of %d: use -1 for an unknown one", size)
		}
		return &OpenBody{Size: size, Reader: r, close: r.Close}, nil
	}}
}

// Stream sends r to its end, once: a second Send, and a retry that needs bytes already read, fail
// with ErrBodyConsumed. It cannot continue over another Conn: use File or Content for that.
func Stream(r io.Reader) Body {
	if r == nil {
		return noBody("Stream was given no reader")
	}
	return openOnce(&OpenBody{Size: -1, Reader: r, once: true})
}

// openOnce is a Body that can be opened once.
func openOnce(b *OpenBody) Body {
	var used atomic.Bool
	return Body{open: func(context.Context) (*OpenBody, error) {
		if used.Swap(true) {
			return nil, ErrBodyConsumed
		}
		return b, nil
	}}
}
