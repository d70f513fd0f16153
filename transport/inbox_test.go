package transport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/pixferry/pixferry/chunk"
)

func TestOfferRefusals(t *testing.T) {
	named := func(name string) Offer { return Offer{Image: Image{Name: name}, Size: 1} }
	for name, c := range map[string]struct {
		o      Offer
		reason Reason
	}{
		"path":               {named("../../x"), ReasonName},
		"device":             {named("CON"), ReasonName},
		"long name":          {named(strings.Repeat("x", 10_000)), ReasonName},
		"too large":          {Offer{Size: 1001}, ReasonTooLarge},
		"meta":               {Offer{Image: Image{Meta: map[string]string{"k": strings.Repeat("v", 100)}}}, ReasonMeta},
		"meta not UTF-8":     {Offer{Image: Image{Meta: map[string]string{"k": "\xff"}}}, ReasonMeta},
		"long source":        {Offer{Image: Image{Source: strings.Repeat("s", 256)}}, ReasonMeta},
		"media type":         {Offer{Image: Image{MediaType: "image/\njpeg"}}, ReasonMeta},
		"unknown algorithm":  {Offer{Digest: chunk.Algorithm{ID: 99}}, ReasonMalformed},
		"finished by itself": {Offer{ID: MakeID(1, 5), Oldest: 6}, ReasonStale},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Server{Store: &MemStore{}, Limits: Limits{MaxImage: 1000, MaxMeta: 100}}
			bubble(t, s, func(t *testing.T) {
				in := inbox(t, s, "p")
				_, err := in.Offer(t.Context(), c.o)
				wantReason(t, err, c.reason, false)
				a := mustOffer(t, in, Offer{Image: Image{Name: "next"}, Size: 1000})
				mustWrite(t, a, make([]byte, 1000), 0)
				if _, err := a.Finish(t.Context(), -1, chunk.Digest{}); err != nil {
					t.Error("the next transfer:", err)
				}
			})
		})
	}
}

func TestTransfersAreBounded(t *testing.T) {
	store := &MemStore{}
	s := &Server{Store: store, Limits: Limits{MaxTransfers: 2, MaxActive: 3}}
	bubble(t, s, func(t *testing.T) {
		one, two := inbox(t, s, "1"), inbox(t, s, "2")
		a := mustOffer(t, one, Offer{})
		b := mustOffer(t, one, Offer{})
		_, err := one.Offer(t.Context(), Offer{})
		wantReason(t, err, ReasonBusy, true)
		c := mustOffer(t, two, Offer{})
		_, err = two.Offer(t.Context(), Offer{})
		wantReason(t, err, ReasonBusy, true)

		a.Abort(nil) // frees a place of the Conn, and one of all
		d := mustOffer(t, one, Offer{})
		_, err = two.Offer(t.Context(), Offer{})
		wantReason(t, err, ReasonBusy, true)
		if _, err := d.Finish(t.Context(), 0, chunk.Digest{}); err != nil { // and so does the end of a transfer
			t.Fatal(err)
		}
		mustOffer(t, two, Offer{}).Abort(nil)
		// A refusal takes no place.
		for range 10 {
			_, err := one.Offer(t.Context(), Offer{Image: Image{Name: ".."}})
			wantReason(t, err, ReasonName, false)
		}
		mustOffer(t, one, Offer{}).Abort(nil)
		b.Abort(nil)
		c.Abort(nil)
	})
}

func TestAssembly(t *testing.T) {
	const block = chunk.BlockSize
	for _, size := range []int{0, 1, sniffLen, block - 1, block, block + 1, 3*block + 7} {
		content := picture(uint64(size), size)
		for name, feed := range map[string]func(t *testing.T, a *Arrival){
			"at once": func(t *testing.T, a *Arrival) { mustWrite(t, a, content, 0) },
			"backwards": func(t *testing.T, a *Arrival) {
				for end := size; end > 0; {
					start := max(0, end-200_000)
					mustWrite(t, a, content[start:end], int64(start))
					end = start
				}
			},
			"overlapping and repeated": func(t *testing.T, a *Arrival) {
				for start := 0; start < size; start += 300_000 {
					mustWrite(t, a, content[start:min(size, start+400_000)], int64(start))
					mustWrite(t, a, content[start:min(size, start+1)], int64(start))
				}
			},
		} {
			for _, known := range []bool{true, false} {
				store := &MemStore{}
				s := &Server{Store: store}
				bubble(t, s, func(t *testing.T) {
					o := Offer{ID: MakeID(7, uint64(size)), Image: Image{Name: "x"}, Size: -1}
					if known {
						o.Size = int64(size)
					}
					a := mustOffer(t, inbox(t, s, "p"), o)
					feed(t, a)
					want := Receipt{ID: o.ID, Level: Kept, Bytes: int64(size), Digest: digestOf(XXH3, content)}
					r, err := a.Finish(t.Context(), int64(size), want.Digest)
					r.Resent = 0
					if err != nil || r != want {
						t.Fatalf("%d bytes %s: %v, %v; want %v", size, name, r, err, want)
					}
					if a.Received() != int64(size) || !bytes.Equal(kept(t, store, "x"), content) {
						t.Fatalf("%d bytes %s: other bytes were kept", size, name)
					}
				})
			}
		}
	}
}

// A digest may be made by an algorithm that only its two ends know.
func TestDigestOfTheUsersOwn(t *testing.T) {
	own := chunk.Algorithm{ID: 200, Name: "own", New: sha256.New}
	s := &Server{Store: &MemStore{}}
	bubble(t, s, func(t *testing.T) {
		in := inbox(t, s, "p")
		for _, alg := range []chunk.Algorithm{own, {ID: 200}} {
			a, err := in.Offer(t.Context(), Offer{Image: Image{Name: "x"}, Size: 1, Digest: alg})
			if alg.New == nil { // the receiver has not brought it
				wantReason(t, err, ReasonMalformed, false)
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			mustWrite(t, a, []byte("x"), 0)
			if r, err := a.Finish(t.Context(), -1, digestOf(own, []byte("x"))); err != nil || r.Digest != digestOf(own, []byte("x")) {
				t.Errorf("%+v, %v", r, err)
			}
		}
	})
}

func TestResentIsCounted(t *testing.T) {
	s := &Server{Store: &MemStore{}}
	bubble(t, s, func(t *testing.T) {
		a := mustOffer(t, inbox(t, s, "p"), Offer{Size: 100})
		mustWrite(t, a, make([]byte, 60), 0)
		mustWrite(t, a, make([]byte, 60), 40)
		r, err := a.Finish(t.Context(), -1, chunk.Digest{})
		if err != nil || r.Resent != 20 {
			t.Errorf("%+v, %v: want 20 bytes resent", r, err)
		}
	})
}

func TestFinishRefuses(t *testing.T) {
	content := picture(1, 1000)
	other := digestOf(XXH3, content[1:])
	for name, c := range map[string]struct {
		size, sent, final int64
		digest            chunk.Digest
		reason            Reason
		retryable         bool
	}{
		"nothing came":               {1000, 0, -1, chunk.Digest{}, ReasonIncomplete, true},
		"a byte is missing":          {1000, 999, -1, chunk.Digest{}, ReasonIncomplete, true},
		"ended early":                {1000, 999, 999, chunk.Digest{}, ReasonIncomplete, true},
		"missing of an unknown size": {-1, 999, 1000, chunk.Digest{}, ReasonIncomplete, true},
		"another digest":             {1000, 1000, -1, other, ReasonDigest, true},
		"another algorithm":          {1000, 1000, -1, digestOf(chunk.SHA256, content), ReasonMalformed, false},
		"larger than offered":        {1000, 1000, 1001, chunk.Digest{}, ReasonMalformed, false},
		"smaller than what has come": {-1, 1000, 999, chunk.Digest{}, ReasonMalformed, false},
		"over the limit at the end":  {-1, 1000, 5000, chunk.Digest{}, ReasonTooLarge, false},
	} {
		t.Run(name, func(t *testing.T) {
			store := &MemStore{}
			s := &Server{Store: store, Limits: Limits{MaxImage: 2000}}
			bubble(t, s, func(t *testing.T) {
				in := inbox(t, s, "p")
				o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: c.size}
				a := mustOffer(t, in, o)
				mustWrite(t, a, content[:c.sent], 0)
				_, err := a.Finish(t.Context(), c.final, c.digest)
				wantReason(t, err, c.reason, c.retryable)
				if errors.Is(err, ErrDigest) != (c.reason == ReasonDigest) {
					t.Errorf("errors.Is(%v, ErrDigest) is wrong", err)
				}
				if countKept(store) != 0 {
					t.Error("something was kept")
				}
				// It is over: the same error again, and the ID can be offered anew.
				if _, again := a.WriteAt(content, 0); again != err {
					t.Error("then WriteAt:", again)
				}
				if _, again := a.Finish(t.Context(), -1, chunk.Digest{}); again != err {
					t.Error("then Finish:", again)
				}
				o.Size = 1000
				a = mustOffer(t, in, o)
				mustWrite(t, a, content, 0)
				if _, err := a.Finish(t.Context(), -1, chunk.Digest{}); err != nil || !bytes.Equal(kept(t, store, "x"), content) {
					t.Error("the next attempt:", err)
				}
			})
		})
	}
}

func TestWriteAtRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		size, off int64
		reason    Reason
	}{
		"beyond the size":              {100, 96, ReasonMalformed},
		"over the limit, size unknown": {-1, 196, ReasonTooLarge},
		"far away":                     {-1, 1 << 62, ReasonTooLarge},
		"offset overflows":             {-1, 1<<63 - 2, ReasonTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Server{Store: &MemStore{}, Limits: Limits{MaxImage: 200, MaxTransfers: 1}}
			bubble(t, s, func(t *testing.T) {
				in := inbox(t, s, "p")
				a := mustOffer(t, in, Offer{Size: c.size})
				n, err := a.WriteAt(make([]byte, 5), c.off)
				wantReason(t, err, c.reason, false)
				if n != 0 {
					t.Error("bytes taken:", n)
				}
				a.Abort(nil)                         // a no-op now
				mustOffer(t, in, Offer{}).Abort(nil) // its place is free
				_, again := a.Finish(t.Context(), 0, chunk.Digest{})
				if again != err {
					t.Error("then Finish:", again)
				}
			})
		})
	}
}

func TestMissing(t *testing.T) {
	s := &Server{Store: &MemStore{}}
	bubble(t, s, func(t *testing.T) {
		a := mustOffer(t, inbox(t, s, "p"), Offer{Size: 50})
		mustWrite(t, a, make([]byte, 10), 10)
		mustWrite(t, a, make([]byte, 10), 30)
		want := []chunk.Range{{Start: 0, End: 10}, {Start: 20, End: 30}, {Start: 40, End: 50}}
		if got := a.Missing(10); !slices.Equal(got, want) {
			t.Error(got)
		}
		if got := a.Missing(2); !slices.Equal(got, want[:2]) {
			t.Error(got)
		}
		if a.Missing(0) != nil || a.Joined() || a.Received() != 20 {
			t.Error(a.Missing(0), a.Joined(), a.Received())
		}
		a.Abort(nil)
		if got := a.Missing(10); got != nil {
			t.Error("after Abort:", got)
		}
	})
}

func TestDuplicateAfterCommit(t *testing.T) {
	content := picture(1, 1000)
	store := &MemStore{}
	calls := 0
	s := &Server{Store: store, Handler: func(context.Context, *Incoming) error { calls++; return nil }}
	bubble(t, s, func(t *testing.T) {
		o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: 1000, Attempt: 9}
		a := mustOffer(t, inbox(t, s, "one"), o)
		if _, done := a.Done(); done || a.Joined() {
			t.Error("done before it began")
		}
		mustWrite(t, a, content, 0)
		first, err := a.Finish(t.Context(), -1, chunk.Digest{})
		if err != nil {
			t.Fatal(err)
		}
		// From elsewhere, by an older attempt: the ID alone counts.
		o.Attempt = 1
		a = mustOffer(t, inbox(t, s, "two"), o)
		r, done := a.Done()
		if !done || !a.Joined() || r.Digest != first.Digest || r.Reused != 1000 || r.Level != Kept {
			t.Errorf("%+v, %v", r, done)
		}
		mustWrite(t, a, []byte("whatever"), 0) // changes nothing
		a.Abort(context.Canceled)              // nor does this
		if again, err := a.Finish(t.Context(), -1, chunk.Digest{}); err != nil || again != r {
			t.Errorf("%+v, %v", again, err)
		}
		if calls != 1 || countKept(store) != 1 || !bytes.Equal(kept(t, store, "x"), content) {
			t.Errorf("%d Handler calls, %d images", calls, countKept(store))
		}
	})
}

func TestStale(t *testing.T) {
	s := &Server{Store: &MemStore{}}
	bubble(t, s, func(t *testing.T) {
		in := inbox(t, s, "p")
		send := func(counter, oldest uint64) error {
			a, err := in.Offer(t.Context(), Offer{ID: MakeID(1, counter), Oldest: oldest})
			if err == nil {
				_, err = a.Finish(t.Context(), 0, chunk.Digest{})
			}
			return err
		}
		if err := errors.Join(send(1, 1), send(2, 1), send(5, 3)); err != nil {
			t.Fatal(err)
		}
		wantReason(t, send(2, 1), ReasonStale, false)
		wantReason(t, send(2, 0), ReasonStale, false)
		if err := send(3, 3); err != nil {
			t.Error("at the floor:", err)
		}
		if a := mustOffer(t, in, Offer{ID: MakeID(1, 5)}); !a.Joined() {
			t.Error("a receipt above the floor was forgotten")
		}
		if _, known, _ := s.Store.Receipt(t.Context(), MakeID(1, 1)); known {
			t.Error("a receipt below the floor is remembered")
		}
		mustOffer(t, in, Offer{ID: MakeID(2, 1)}).Abort(nil) // another sender
	})
}

// A device has no room for its name: its address, without the port of the connection, tells it apart.
func TestADeviceIsTheSourceOfItsImages(t *testing.T) {
	for _, c := range []struct {
		peer   string
		offer  Offer
		source string
	}{
		{"192.0.2.7:50123", Offer{}, "192.0.2.7"},
		{"[2001:db8::7]:50123", Offer{}, "2001:db8::7"},
		{"[::ffff:192.0.2.7]:50123", Offer{}, "192.0.2.7"},
		{"gate-7", Offer{}, ""},
		{"192.0.2.7:50123", Offer{Image: Image{Source: "infrared"}}, "infrared"},
		{"192.0.2.7:50123", Offer{ID: MakeID(1, 1)}, ""}, // its protocol has room
	} {
		var seen string
		s := &Server{Handler: func(_ context.Context, in *Incoming) error {
			seen = in.Image.Source
			return nil
		}}
		bubble(t, s, func(t *testing.T) {
			a := mustOffer(t, inbox(t, s, c.peer), c.offer)
			if _, err := a.Finish(t.Context(), 0, chunk.Digest{}); err != nil {
				t.Fatal(err)
			}
		})
		if seen != c.source {
			t.Errorf("from %s, with %+v: source %q, want %q", c.peer, c.offer, seen, c.source)
		}
	}
}

func TestMetadataAreFilledIn(t *testing.T) {
	jpeg := append([]byte("\xff\xd8\xff\xe0\x00\x10JFIF"), make([]byte, 600)...)
	for _, streaming := range []bool{false, true} {
		var seen Image
		store := &MemStore{}
		s := &Server{Store: store, Streaming: streaming, Handler: func(_ context.Context, in *Incoming) error {
			seen = *in.Image
			return nil
		}}
		bubble(t, s, func(t *testing.T) {
			in := inbox(t, s, "p")
			id := MakeID(1, 1)
			for _, c := range []struct{ offered, want Image }{
				{Image{}, Image{Name: id.String() + ".jpg", MediaType: "image/jpeg"}},
				{Image{Name: "a", Source: "cam"}, Image{Name: "a", MediaType: "image/jpeg", Source: "cam"}},
				{Image{Name: "b", MediaType: "text/plain"}, Image{Name: "b", MediaType: "text/plain"}},
			} {
				a := mustOffer(t, in, Offer{ID: id, Image: c.offered, Size: -1})
				mustWrite(t, a, jpeg[5:], 5) // the start comes last
				mustWrite(t, a, jpeg[:5], 0)
				if _, err := a.Finish(t.Context(), -1, chunk.Digest{}); err != nil {
					t.Fatal(err)
				}
				if seen.Name != c.want.Name || seen.MediaType != c.want.MediaType || seen.Source != c.want.Source {
					t.Errorf("streaming %v: the Handler saw %+v, want %+v", streaming, seen, c.want)
				}
				if !bytes.Equal(kept(t, store, c.want.Name), jpeg) {
					t.Error("kept under that name: other bytes")
				}
				id = MakeID(1, id.Counter()+1)
			}
		})
	}
}

func TestConnEndAbortsWhatIsLeft(t *testing.T) {
	store := &MemStore{}
	s := &Server{Store: store}
	bubble(t, s, func(t *testing.T) {
		in, conn := inboxConn(t, s, "p")
		o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: 3 * chunk.BlockSize, Resume: true}
		content := picture(1, int(o.Size))
		a := mustOffer(t, in, o)
		mustWrite(t, a, content[:2*chunk.BlockSize], 0)
		conn.Close()
		synctest.Wait()
		_, err := a.WriteAt(content, 0)
		wantReason(t, err, ReasonCanceled, true)
		_, err = in.Offer(t.Context(), Offer{})
		wantReason(t, err, ReasonCanceled, true)
		wantReason(t, in.Message(t.Context(), Message{}), ReasonCanceled, true)

		a = mustOffer(t, inbox(t, s, "p"), o) // the same attempt: nobody holds it now
		if len(a.Held()) != 2 {
			t.Error("held of 2 blocks:", len(a.Held()))
		}
		a.Abort(nil)
	})
}

func TestMessage(t *testing.T) {
	refusal := Reject("not this one")
	started := make(chan struct{}, 1)
	var got []Message
	s := &Server{Limits: Limits{MaxMessage: 10}, Message: func(ctx context.Context, from Conn, m Message) error {
		switch m.Type {
		case "refuse":
			return refusal
		case "fail":
			return errors.New("broken")
		case "panic":
			panic("oh")
		case "wait":
			started <- struct{}{}
			<-ctx.Done()
			return context.Cause(ctx)
		}
		if from.Info().Peer != "p" {
			t.Error("from", from.Info())
		}
		got = append(got, m)
		return nil
	}}
	bubble(t, s, func(t *testing.T) {
		in := inbox(t, s, "p")
		data := []byte("hello")
		if err := in.Message(t.Context(), Message{Type: "text/plain", Data: data}); err != nil {
			t.Fatal(err)
		}
		copy(data, "XXXXX")
		if len(got) != 1 || got[0].Type != "text/plain" || string(got[0].Data) != "hello" {
			t.Errorf("%q", got)
		}
		send := func(m Message) error { return in.Message(t.Context(), m) }
		wantReason(t, send(Message{Type: "refuse"}), ReasonHandler, false)
		wantReason(t, send(Message{Type: "fail"}), ReasonHandler, true)
		wantReason(t, send(Message{Type: "panic"}), ReasonHandler, true)
		wantReason(t, send(Message{Data: make([]byte, 11)}), ReasonTooLarge, false)
		wantReason(t, send(Message{Type: "\n"}), ReasonMeta, false)
		_, err := in.Offer(t.Context(), Offer{})
		wantReason(t, err, ReasonNotServing, false)

		ctx, cancel := context.WithCancel(t.Context())
		result := async(func() error { return in.Message(ctx, Message{Type: "wait"}) })
		<-started
		cancel()
		wantReason(t, <-result, ReasonCanceled, true)
		if len(got) != 1 {
			t.Errorf("%q", got)
		}
	})
	silent := &Server{Store: &MemStore{}}
	bubble(t, silent, func(t *testing.T) {
		wantReason(t, inbox(t, silent, "p").Message(t.Context(), Message{}), ReasonNotServing, false)
	})
}
