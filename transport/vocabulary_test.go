package transport

import (
	"bytes"
	"context"
	"errors"
	"image"
	_ "image/jpeg"
	_ "image/png"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/pixferry/pixferry/chunk"
)

func TestID(t *testing.T) {
	id := MakeID(0x0102030405060708, 0x090a0b0c0d0e0f10)
	if id.String() != "0102030405060708090a0b0c0d0e0f10" || id.Instance() != 0x0102030405060708 || id.Counter() != 0x090a0b0c0d0e0f10 || id.IsZero() {
		t.Error(id)
	}
	if back, err := ParseID(id.String()); err != nil || back != id {
		t.Error(back, err)
	}
	for _, bad := range []string{"", "01", strings.Repeat("g", 32), strings.Repeat("0", 33), strings.Repeat("x", 10_000)} {
		if got, err := ParseID(bad); err == nil || !got.IsZero() || len(err.Error()) > 150 {
			t.Errorf("ParseID(%.40q): %v, %v", bad, got, err)
		}
	}
	if a, b := NewID(), NewID(); a == b || a.IsZero() || !(ID{}).IsZero() {
		t.Error("NewID repeats itself")
	}
}

func TestEncode(t *testing.T) {
	img := image.NewGray(image.Rect(0, 0, 30, 20))
	for _, mediaType := range []string{"image/jpeg", "image/png"} {
		body := Encode(img, mediaType)
		var all sync.WaitGroup
		for range 10 { // at the same time, encoded once
			all.Go(func() {
				b, err := body.ReadAll(t.Context())
				if err != nil || sniff(b) != mediaType {
					t.Error(mediaType, err)
				}
				if got, _, err := image.Decode(bytes.NewReader(b)); err != nil || got.Bounds() != img.Bounds() {
					t.Error(mediaType, err)
				}
			})
		}
		all.Wait()
	}
	if _, err := Encode(img, "image/gif").Open(t.Context()); err == nil || Retryable(err) {
		t.Error(err)
	}
}

// Bodies of nothing are mistakes that Send tells, and no panics.
func TestBodiesOfNothing(t *testing.T) {
	for name, body := range map[string]Body{
		"File": File(""), "Content": Content(nil, 5), "size": Content(strings.NewReader("x"), -1), "Encode": Encode(nil, "image/png"),
		"OpenFunc": OpenFunc(nil), "Stream": Stream(nil), "none": {},
		"no reader": OpenFunc(func(context.Context) (io.ReadCloser, int64, error) { return nil, 0, nil }),
	} {
		a, b := Pipe()
		_, err := a.Send(t.Context(), &Image{Body: body}, nil)
		if !errors.Is(err, ErrConfig) || Retryable(err) {
			t.Errorf("%s: %v", name, err)
		}
		b.Close()
	}
}

func TestErrorTexts(t *testing.T) {
	id := MakeID(1, 2)
	for want, err := range map[string]error{
		"send 00000000000000010000000000000002 (unknown whether kept): x": &Error{Op: "send", ID: id, Outcome: Unknown, Err: errors.New("x")},
		"message: x":                             &Error{Op: "message", Err: errors.New("x")},
		"busy":                                   &RejectedError{Reason: ReasonBusy},
		"refused by the handler: no 7":           Reject("no %d", 7),
		"reason 200: x":                          &RejectedError{Reason: 200, Text: "x"},
		"name of 3 bytes is over the limit of 2": &TooLargeError{What: "name", Size: 3, Max: 2},
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
	for _, err := range []error{ErrClosed, ErrPeerClosed, ErrServerClosed, ErrPeerRestarted} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v does not match net.ErrClosed", err)
		}
	}
	if errors.Is(ErrClosed, ErrPeerClosed) || errors.Is(ErrIdle, net.ErrClosed) {
		t.Error("errors match too much")
	}
	for o, want := range map[Outcome]string{NotKept: "not kept", Rejected: "rejected", Unknown: "unknown whether kept"} {
		if o.String() != want {
			t.Error(o)
		}
	}
	for l, want := range map[Level]string{0: "none", Sent: "sent", Received: "received", Kept: "kept"} {
		if l.String() != want {
			t.Error(l)
		}
	}
}

func TestClipKeepsUTF8(t *testing.T) {
	for n := range 4 {
		s := strings.Repeat("x", 1024-n) + "図図"
		got := clip(s)
		if len(got) > 1024 || len(got) < 1021 || !utf8.ValidString(got) || !strings.HasPrefix(s, got) {
			t.Errorf("%d bytes: %q", len(got), got[1000:])
		}
	}
	if got := clip(strings.Repeat("\xff", 2000)); len(got) > 1024 {
		t.Error(len(got))
	}
}

func TestAlgorithms(t *testing.T) {
	for id, want := range map[uint8]string{1: "xxh3-128", 2: "sha256"} {
		a, ok := AlgorithmByID(id)
		if !ok || a.ID != id || a.Name != want || digestOf(a, nil).Algorithm() != id || !strings.HasPrefix(digestOf(a, nil).String(), want+":") {
			t.Error(id, a, ok)
		}
	}
	for _, id := range []uint8{0, 3, 128} {
		if _, ok := AlgorithmByID(id); ok {
			t.Error(id, "is known")
		}
	}
	// XXH3-128 of "" with seed 0, from the vectors of its reference implementation.
	h := XXH3.New()
	if got := h.Sum(nil); len(got) != 16 || !bytes.Equal(got, []byte("\x99\xaa\x06\xd3\x01\x47\x98\xd8\x60\x01\xc3\x24\x46\x8d\x49\x7f")) {
		t.Errorf("%x", got)
	}
	p := picture(1, block)
	for _, n := range []int{0, 1, 3, 8, 16, 17, 128, 129, 240, 241, 1024, 1025, block} { // where XXH3 takes another way
		h := XXH3.New()
		h.Write(p[:n])
		if sum := XXH3.Sum(nil, p[:n]); !bytes.Equal(sum, h.Sum(nil)) {
			t.Errorf("at once %d bytes have %x", n, sum)
		}
	}
}

func TestFloorsAreBounded(t *testing.T) {
	s := &Server{Store: &MemStore{}, Limits: Limits{MaxReceipts: 10}}
	bubble(t, s, func(t *testing.T) {
		in := inbox(t, s, "p")
		if got := in.Limits(); got.MaxReceipts != 10 || got.MaxImage != 16<<30 || got.MaxMessage != 64<<10 {
			t.Errorf("%+v", got)
		}
		for i := range uint64(100) {
			mustOffer(t, in, Offer{ID: MakeID(i, 5), Oldest: 5}).Abort(nil)
		}
		if len(s.floors) != 10 {
			t.Error(len(s.floors), "senders are remembered")
		}
		_, err := in.Offer(t.Context(), Offer{ID: MakeID(99, 4)}) // the latest among them
		wantReason(t, err, ReasonStale, false)
	})
}

// damagedStore finds blocks that cannot be.
type damagedStore struct{ MemStore }

func (s *damagedStore) Open(ctx context.Context, o PartialOffer) (Partial, error) {
	p, err := s.MemStore.Open(ctx, o)
	return damagedPartial{p}, err
}

type damagedPartial struct{ Partial }

func (damagedPartial) Held() []chunk.Block {
	return []chunk.Block{{Index: 0, Digest: digestOf(XXH3, nil)}, {Index: 99, Digest: digestOf(XXH3, nil)}}
}

func TestDamagedListOfBlocks(t *testing.T) {
	store := &damagedStore{}
	s := &Server{Store: store}
	bubble(t, s, func(t *testing.T) {
		content := picture(1, block+5)
		a := mustOffer(t, inbox(t, s, "p"), Offer{Image: Image{Name: "x"}, Size: block + 5, Resume: true})
		if err := a.Use([]int64{0, 99}); err != nil {
			t.Fatal(err)
		}
		if a.Received() != 0 {
			t.Error(a.Received(), "bytes are believed")
		}
		mustWrite(t, a, content, 0)
		if _, err := a.Finish(t.Context(), -1, digestOf(XXH3, content)); err != nil || !bytes.Equal(kept(t, &store.MemStore, "x"), content) {
			t.Error(err)
		}
	})
}
