package transporttest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
)

func checkInfo(t testing.TB, k transportKit) {
	r := k.rig(t, nil)
	info := r.conn.Info()
	if info.Protocol == "" {
		t.Error("Info().Protocol is empty")
	}
	if info.Confirms != k.Confirms || k.Confirms == 0 {
		t.Errorf("Info().Confirms is %q; claimed is %q", info.Confirms, k.Confirms)
	}
	if info.Concurrency < max(1, k.Concurrency) {
		t.Errorf("Info().Concurrency is %d; claimed is %d", info.Concurrency, k.Concurrency)
	}
	if info.Messages != (k.Messages > 0) || info.Resumes != k.Resume {
		t.Errorf("Info says messages %v, resumes %v; claimed are %v, %v", info.Messages, info.Resumes, k.Messages > 0, k.Resume)
	}
	if info.MaxImage != k.MaxSize {
		t.Errorf("Info().MaxImage is %d; claimed is %d", info.MaxImage, k.MaxSize)
	}
}

// around returns the sizes worth trying, ascending, within the limits.
func (k transportKit) around(large int64) []int64 {
	sizes := []int64{0, 1, 2, large}
	for _, b := range k.Boundaries {
		sizes = append(sizes, b-1, b, b+1, 2*b)
	}
	for i := range sizes {
		sizes[i] = k.fit(sizes[i])
	}
	slices.Sort(sizes)
	return slices.Compact(sizes)
}

func (k transportKit) large() int64 {
	return cmp.Or(k.Large, 8<<20)
}

func checkSizes(t testing.TB, k transportKit) {
	r := k.rig(t, nil)
	for _, n := range k.around(k.large()) {
		b := r.content(int(n))
		got := r.deliver(r.next(false), r.imageOf(b), b, nil)
		if got.Size != n {
			t.Errorf("the Handler was told %d bytes for an image of %d", got.Size, n)
		}
	}
	r.nothing()
}

func checkUnknownSize(t testing.TB, k transportKit) {
	if !k.UnknownSize {
		t.Skip("UnknownSize is not claimed")
	}
	r := k.rig(t, nil)
	for _, n := range k.around(300_000) {
		b := r.content(int(n))
		img := &transport.Image{Body: transport.OpenFunc(func(context.Context) (io.ReadCloser, int64, error) {
			return io.NopCloser(&fitful{b}), -1, nil
		})}
		r.deliver(r.next(false), img, b, nil)
	}
	b := r.content(k.usual())
	img := &transport.Image{Body: transport.Stream(&fitful{b})}
	r.deliver(r.next(false), img, b, nil)
	if _, err := r.send(t.Context(), r.next(false), img, nil); !errors.Is(err, transport.ErrBodyConsumed) {
		t.Errorf("Send of a Stream that was read: %v; want ErrBodyConsumed", err)
	}
	r.works(true, "a stream that was read")
}

// fitful reads in pieces of all sizes.
type fitful struct{ rest []byte }

func (f *fitful) Read(p []byte) (int, error) {
	if len(f.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 1+len(f.rest)*7%5000)], f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func checkStreaming(t testing.TB, k transportKit) {
	r := k.rig(t, func(s *transport.Server) { s.Streaming = true })
	for range 2 {
		c := r.next(false)
		img, b := r.image()
		r.deliver(c, img, b, nil)
	}
}

func checkConcurrent(t testing.TB, k transportKit) {
	r := k.rig(t, nil)
	const senders = 8
	same, content := r.image()
	total := 0
	var wg sync.WaitGroup
	for i := range senders {
		c := r.conn
		if k.SingleUse {
			c = r.dial()
		}
		own, _ := r.image()
		all := []*transport.Image{own}
		if !k.SingleUse {
			all = append(all, same)
			r.again(content, min(i, 1))
		}
		total += len(all)
		wg.Go(func() {
			for _, img := range all {
				if _, err := r.send(t.Context(), c, img, nil); err != nil {
					t.Errorf("one of %d concurrent Sends: %v", senders, err)
				}
			}
		})
	}
	within(t, "concurrent Sends", wg.Wait)
	for range total {
		if t.Failed() || !r.mayArrive(await(t, "the arrival of concurrent images", r.arrived)) {
			return
		}
	}
	r.nothing()
}

// Images that wait for one another arrive only if they travel side by side.
func checkParallel(t testing.TB, k transportKit) {
	if k.Concurrency < 2 {
		t.Skip("a Concurrency of 2 or more is not claimed")
	}
	var all sync.WaitGroup
	all.Add(k.Concurrency)
	r := k.rig(t, func(s *transport.Server) {
		s.Handler = func(context.Context, *transport.Incoming) error { all.Done(); all.Wait(); return nil }
	})
	var sends sync.WaitGroup
	for range k.Concurrency {
		img, _ := r.image()
		sends.Go(func() {
			if _, err := r.send(t.Context(), r.conn, img, nil); err != nil {
				t.Errorf("one of %d Sends side by side: %v", k.Concurrency, err)
			}
		})
	}
	within(t, fmt.Sprintf("%d images side by side, as claimed", k.Concurrency), sends.Wait)
}

func checkSendAll(t testing.TB, k transportKit) {
	if k.SingleUse {
		t.Skip("SingleUse is claimed")
	}
	r := k.rig(t, nil)
	const images = 20
	var contents [][]byte
	for n := range int64(images) {
		contents = append(contents, r.content(int(k.fit(n*n*n*10))))
	}
	seq := iter.Seq2[*transport.Image, error](func(yield func(*transport.Image, error) bool) {
		for _, b := range contents {
			if !yield(r.imageOf(b), nil) {
				return
			}
		}
	})
	kept := 0
	within(t, "SendAll", func() {
		err := transport.SendAll(t.Context(), r.conn, seq, &transport.SendAllOptions{
			Each: func(_ *transport.Image, _ transport.Receipt, err error) {
				if err == nil {
					kept++
				}
			},
		})
		if err != nil {
			t.Errorf("SendAll: %v", err)
		}
	})
	if kept != images {
		t.Errorf("SendAll sent %d of %d images", kept, images)
	}
	for range kept {
		r.mayArrive(await(t, "the arrival of what SendAll sent", r.arrived))
	}
	r.nothing()
}

func checkNames(t testing.TB, k transportKit) {
	if !k.Names {
		t.Skip("Names is not claimed")
	}
	r := k.rig(t, nil)
	for _, name := range []string{"a.jpg", "two words.png", "ünïcode-图像.bmp", strings.Repeat("n", 200) + ".jpg"} {
		c := r.next(false)
		img, b := r.image()
		img.Name = name
		if got := r.deliver(c, img, b, nil); got.Image.Name != name {
			t.Errorf("the name %q arrived as %q", name, got.Image.Name)
		}
	}
	for _, name := range []string{"../../x", "/etc/passwd", `a\b`, "CON", "a\x00b", "end.", strings.Repeat("n", 10_000)} {
		c := r.next(false)
		img, b := r.image()
		img.Name = name
		_, err := r.send(t.Context(), c, img, nil)
		if k.Confirms == transport.Kept && err == nil {
			t.Errorf("an image with the name %.40q was kept", name)
		}
		if k.Rejections && err != nil {
			r.refused(err, transport.ReasonName, false)
		}
		r.works(true, fmt.Sprintf("the name %.40q", name))
		r.nothing(b)
	}
}

func checkMetadata(t testing.TB, k transportKit) {
	if !k.Metadata {
		t.Skip("Metadata is not claimed")
	}
	r := k.rig(t, nil)
	img, b := r.image()
	img.MediaType, img.Source = "image/x-test", "camera-7"
	img.Captured = time.Date(2024, 2, 29, 12, 34, 56, 789e6, time.FixedZone("", 3600))
	img.Meta = map[string]string{"exposure": "1/250", "ort": "Köln", "": "empty key", "empty value": ""}
	got := r.deliver(r.conn, img, b, nil).Image
	if got.MediaType != img.MediaType || got.Source != img.Source || !got.Captured.Equal(img.Captured) {
		t.Errorf("media type, source and time arrived as %q, %q, %v; want %q, %q, %v",
			got.MediaType, got.Source, got.Captured, img.MediaType, img.Source, img.Captured)
	}
	if fmt.Sprint(got.Meta) != fmt.Sprint(img.Meta) {
		t.Errorf("the metadata arrived as %q, want %q", got.Meta, img.Meta)
	}
	b = r.content(k.usual())
	copy(b, "\xff\xd8\xff\xe0")
	r.again(b, 1)
	if got := r.deliver(r.next(false), r.imageOf(b), b, nil).Image; got.MediaType != "image/jpeg" || !got.Captured.IsZero() || len(got.Meta) > 0 {
		t.Errorf("a JPEG without metadata arrived as %q, taken %v, with %q", got.MediaType, got.Captured, got.Meta)
	}
}

func checkProgress(t testing.TB, k transportKit) {
	r := k.rig(t, nil)
	for _, n := range []int64{k.fit(0), int64(k.usual()), k.fit(3_000_000)} {
		b := r.content(int(n))
		p := newProgress(t, n)
		r.deliver(r.next(false), r.imageOf(b), b, &transport.SendOptions{Progress: p.report})
		p.ended(k)
	}
}

// progress checks what a Send reports.
type progress struct {
	t     testing.TB
	mu    sync.Mutex
	size  int64
	acked int64
	calls int
	done  bool
}

func newProgress(t testing.TB, size int64) *progress { return &progress{t: t, size: size, acked: -1} }

func (p *progress) report(acked, total int64) {
	if !p.mu.TryLock() {
		p.t.Error("Progress is called while it runs; calls are serial")
		return
	}
	defer p.mu.Unlock()
	if p.done {
		p.t.Error("Progress is called after Send has returned")
	}
	if acked < p.acked || acked > p.size || total != p.size {
		p.t.Errorf("Progress(%d, %d) after %d, for an image of %d bytes", acked, total, p.acked, p.size)
	}
	p.acked = acked
	p.calls++
}

// ended is called when Send has succeeded.
func (p *progress) ended(k transportKit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = true
	if k.Confirms > transport.Sent && max(p.acked, 0) != p.size {
		p.t.Errorf("Progress ended at %d of %d bytes, after %d calls", p.acked, p.size, p.calls)
	}
}

func checkDuplicates(t testing.TB, k transportKit) {
	if !k.IDs || k.Confirms < transport.Received {
		t.Skip("IDs, and Received or more, are not claimed")
	}
	r := k.rig(t, nil)
	o := &transport.SendOptions{ID: transport.NewID()}
	img, b := r.image()
	r.deliver(r.conn, img, b, o)
	for range 2 { // over the same Conn, then over another one
		receipt, err := r.send(t.Context(), r.next(false), img, o)
		if err != nil {
			t.Fatalf("Send under an ID that was kept: %v", err)
		}
		r.receiptOf(receipt, b)
		if k.Resume && receipt.Reused != int64(len(b)) {
			t.Errorf("of an image that was kept already %d of %d bytes are Reused", receipt.Reused, len(b))
		}
		if !k.SingleUse {
			r.conn.Close()
			r.conn = r.dial()
		}
	}
	r.works(false, "a duplicate")
	r.again(b, 1)
	if got := r.deliver(r.next(false), img, b, nil); !bytes.Equal(got.body, b) || got.ID == o.ID {
		t.Error("a deliberate second sending, without an ID, was taken for a duplicate")
	}
}
