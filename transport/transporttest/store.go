package transporttest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/transport"
)

// A MakeStore makes a fresh place for images and returns a function that opens a Store there. It
// is called again, as by a restarted program, after the earlier Store was closed, if that has a
// Close method.
type MakeStore func(t testing.TB) (open func() transport.Store)

// StoreProperties are what a Store claims beyond what all promise.
type StoreProperties struct {
	// Content reads a kept image back by the name that Commit has returned. Nil: nothing is read
	// back.
	Content func(s transport.Store, name string) ([]byte, error)
	// Keeps: the next lease under a key holds what Keep has left under it.
	Keeps bool
	// Restarts: images, receipts and what Keep has left are there after the Store was opened
	// again.
	Restarts bool
}

// TestStore checks the Stores that make returns against what transport.Store and
// transport.Partial promise and against their properties.
func TestStore(t *testing.T, make MakeStore, p StoreProperties) {
	runAll(t, storeChecks, storeKit{make, p}, false)
}

type storeKit struct {
	make MakeStore
	StoreProperties
}

var storeChecks = []check[storeKit]{
	{"Sizes", checkStoreSizes},
	{"Receipts", checkStoreReceipts},
	{"Twice", checkStoreTwice},
	{"SameName", checkStoreSameName},
	{"Concurrent", checkStoreConcurrent},
	{"Leases", checkStoreLeases},
	{"Keep", checkStoreKeep},
	{"Discard", checkStoreDiscard},
	{"Restart", checkStoreRestart},
}

// storeRig is a Store under test.
type storeRig struct {
	testing.TB
	storeKit
	open  func() transport.Store
	store transport.Store
	seed  byte
}

func (k storeKit) rig(t testing.TB) *storeRig {
	r := &storeRig{TB: t, storeKit: k, open: k.make(t)}
	r.store = r.open()
	t.Cleanup(r.close)
	return r
}

func (r *storeRig) close() {
	if c, ok := r.store.(io.Closer); ok {
		if err := c.Close(); err != nil {
			r.Errorf("Close: %v", err)
		}
	}
}

// picture is an image on its way into the Store.
type picture struct {
	id      transport.ID
	key     string
	name    string
	content []byte
}

// picture makes one whose bytes and name nobody else has.
func (r *storeRig) picture(size int) *picture {
	r.seed++
	p := &picture{id: transport.MakeID(77, uint64(r.seed)), name: fmt.Sprintf("image-%d.bin", r.seed), content: make([]byte, size)}
	p.key = "source cam\x00" + p.name
	for i := range p.content {
		p.content[i] = byte(i>>8) + byte(i)*r.seed
	}
	return p
}

func (r *storeRig) lease(p *picture) transport.Partial {
	r.Helper()
	part, err := r.store.Open(r.Context(), p.offer())
	if err != nil {
		r.Fatalf("Open: %v", err)
	}
	return part
}

func (p *picture) offer() transport.PartialOffer {
	return transport.PartialOffer{ID: p.id, Key: p.key, Image: transport.Image{Name: p.name}, Size: int64(len(p.content)), Algorithm: transport.XXH3}
}

// block is one of the picture's.
func (p *picture) block(index int64) (chunk.Block, chunk.Range) {
	at := chunk.BlockRange(index, int64(len(p.content)))
	return chunk.Block{Index: index, Digest: chunk.NewBlockHasher(transport.XXH3).Sum(p.content[at.Start:at.End])}, at
}

// write writes whole blocks, the halves of each in the wrong order, and has them remembered.
func (r *storeRig) write(part transport.Partial, p *picture, blocks ...int64) {
	r.Helper()
	for _, i := range blocks {
		b, at := p.block(i)
		half := at.Start + at.Len()/2
		for _, piece := range []chunk.Range{{Start: half, End: at.End}, {Start: at.Start, End: half}} {
			if n, err := part.WriteAt(p.content[piece.Start:piece.End], piece.Start); err != nil || int64(n) != piece.Len() {
				r.Fatalf("WriteAt of %d bytes at %d: %d, %v", piece.Len(), piece.Start, n, err)
			}
		}
		if err := part.Checkpoint([]chunk.Block{b}); err != nil {
			r.Fatalf("Checkpoint: %v", err)
		}
	}
}

func (p *picture) all() (blocks []int64) {
	for i := range chunk.BlockCount(int64(len(p.content))) {
		blocks = append(blocks, i)
	}
	return blocks
}

// reads compares what a lease holds of a range with the picture.
func (r *storeRig) reads(part transport.Partial, p *picture, at chunk.Range) {
	r.Helper()
	got := make([]byte, at.Len())
	if n, err := part.ReadAt(got, at.Start); int64(n) != at.Len() || err != nil && !errors.Is(err, io.EOF) {
		r.Errorf("ReadAt of %d bytes at %d: %d, %v", at.Len(), at.Start, n, err)
	} else if !bytes.Equal(got, p.content[at.Start:at.End]) {
		r.Errorf("ReadAt: bytes %d to %d are others than were written", at.Start, at.End)
	}
}

func (p *picture) receipt() transport.Receipt {
	return transport.Receipt{ID: p.id, Level: transport.Kept, Digest: digest(p.content), Bytes: int64(len(p.content)), Resent: 3, Reused: 5}
}

func (r *storeRig) commit(part transport.Partial, p *picture) (name string) {
	r.Helper()
	name, err := part.Commit(r.Context(), &transport.Image{Name: p.name, MediaType: "application/octet-stream"}, p.receipt())
	if err != nil {
		r.Fatalf("Commit: %v", err)
	}
	return name
}

// deliver brings the whole picture in and returns its name.
func (r *storeRig) deliver(p *picture) (name string) {
	r.Helper()
	part := r.lease(p)
	r.write(part, p, p.all()...)
	return r.commit(part, p)
}

// kept looks for a picture and its receipt.
func (r *storeRig) kept(p *picture, name string) {
	r.Helper()
	if name == "" {
		r.Errorf("Commit of a new image returns no name")
		return
	}
	if got, ok, err := r.store.Receipt(r.Context(), p.id); err != nil || !ok || got != p.receipt() {
		r.Errorf("Receipt of an image that is kept: %+v, %v, %v; want %+v", got, ok, err, p.receipt())
	}
	if r.Content == nil {
		return
	}
	if got, err := r.Content(r.store, name); err != nil || !bytes.Equal(got, p.content) {
		r.Errorf("the image %s of %d bytes is kept as %d bytes, or others (%v)", name, len(p.content), len(got), err)
	}
}

// holds compares the blocks that a lease holds, and their bytes.
func (r *storeRig) holds(part transport.Partial, p *picture, want ...int64) {
	r.Helper()
	var indices []int64
	for _, b := range part.Held() {
		indices = append(indices, b.Index)
		if ours, at := p.block(b.Index); b.Digest != ours.Digest {
			r.Errorf("Held: block %d has the digest %v, want %v", b.Index, b.Digest, ours.Digest)
		} else {
			r.reads(part, p, at)
		}
	}
	if slices.Sort(indices); !slices.Equal(indices, want) {
		r.Errorf("Held: blocks %d, want %d", indices, want)
	}
}

func (r *storeRig) ends(what string, end func() error) {
	r.Helper()
	if err := end(); err != nil {
		r.Errorf("%s: %v", what, err)
	}
}

func checkStoreSizes(t testing.TB, k storeKit) {
	r := k.rig(t)
	for _, size := range []int{0, 1, chunk.BlockSize - 1, chunk.BlockSize, chunk.BlockSize + 1, 3*chunk.BlockSize + 77} {
		p := r.picture(size)
		part := r.lease(p)
		r.holds(part, p)
		r.write(part, p, p.all()...)
		r.reads(part, p, chunk.Range{End: int64(size)})
		name := r.commit(part, p)
		r.ends("Keep behind Commit", part.Keep)
		r.ends("Discard behind Commit", part.Discard)
		r.kept(p, name)
		again := r.picture(size) // the same key: nothing is left of a committed lease
		again.key = p.key
		part = r.lease(again)
		r.holds(part, again)
		r.ends("Discard", part.Discard)
	}
}

func checkStoreReceipts(t testing.TB, k storeKit) {
	r := k.rig(t)
	var pictures []*picture
	for range 4 {
		p := r.picture(10)
		if len(pictures) == 3 {
			p.id = transport.MakeID(78, 1)
		}
		r.kept(p, r.deliver(p))
		pictures = append(pictures, p)
	}
	for _, id := range []transport.ID{{}, transport.MakeID(77, 99), transport.MakeID(79, 1)} {
		if _, ok, err := r.store.Receipt(t.Context(), id); ok || err != nil {
			t.Errorf("Receipt of %v, which nobody has sent: %v, %v", id, ok, err)
		}
	}
	r.store.Forget(77, pictures[2].id.Counter())
	for i, p := range pictures {
		if _, ok, err := r.store.Receipt(t.Context(), p.id); ok != (i >= 2) || err != nil {
			t.Errorf("Receipt of %v after Forget(77, %d): %v, %v", p.id, pictures[2].id.Counter(), ok, err)
		}
	}
}

func checkStoreTwice(t testing.TB, k storeKit) {
	r := k.rig(t)
	first := r.picture(100)
	name := r.deliver(first)
	second := *r.picture(200)
	second.id = first.id
	if again := r.deliver(&second); again != "" {
		t.Errorf("Commit of an ID that is remembered returns the name %q, want none: nothing is to be stored", again)
	}
	r.kept(first, name)
}

func checkStoreSameName(t testing.TB, k storeKit) {
	r := k.rig(t)
	first, second := r.picture(100), r.picture(200)
	second.name = first.name
	name, other := r.deliver(first), ""
	part, err := r.store.Open(t.Context(), second.offer())
	if err == nil {
		r.write(part, second, second.all()...)
		if other, err = part.Commit(t.Context(), &transport.Image{Name: second.name}, second.receipt()); err != nil {
			r.ends("Discard", part.Discard)
		} else {
			r.kept(second, other)
		}
	}
	if refused := (*transport.RejectedError)(nil); err != nil && !errors.As(err, &refused) {
		t.Errorf("a name that is taken: %v; want a *transport.RejectedError", err)
	}
	if other != name { // it has not replaced it
		r.kept(first, name)
	}
}

func checkStoreConcurrent(t testing.TB, k storeKit) {
	r := k.rig(t)
	var all sync.WaitGroup
	for range 16 {
		p := r.picture(chunk.BlockSize + 5)
		all.Go(func() { r.kept(p, r.deliver(p)) })
	}
	within(t, "16 images at once", all.Wait)
}

func checkStoreLeases(t testing.TB, k storeKit) {
	r := k.rig(t)
	one, two := r.picture(chunk.BlockSize), r.picture(chunk.BlockSize)
	two.key = one.key
	first, second := r.lease(one), r.lease(two)
	r.write(first, one, 0)
	r.write(second, two, 0)
	r.reads(first, one, chunk.Range{End: chunk.BlockSize}) // not what the other lease of its key has written
	r.kept(two, r.commit(second, two))
	r.kept(one, r.commit(first, one))
}

func checkStoreKeep(t testing.TB, k storeKit) {
	r := k.rig(t)
	p := r.picture(3*chunk.BlockSize + 100)
	part := r.lease(p)
	r.write(part, p, 2, 0)
	if !k.Keeps {
		r.ends("Keep", part.Keep)
		t.Skip("Keeps is not claimed")
	}
	r.ends("Keep", part.Keep)
	r.ends("Keep again", part.Keep)
	other := r.picture(len(p.content))
	part = r.lease(other)
	r.holds(part, other) // another key
	r.ends("Discard", part.Discard)

	part = r.lease(p)
	r.holds(part, p, 0, 2)
	if err := part.Drop([]int64{2}); err != nil {
		t.Errorf("Drop: %v", err)
	}
	r.write(part, p, 3)
	r.ends("Keep", part.Keep)
	part = r.lease(p)
	r.holds(part, p, 0, 3)
	r.write(part, p, 1, 2)
	r.kept(p, r.commit(part, p))
}

func checkStoreDiscard(t testing.TB, k storeKit) {
	r := k.rig(t)
	p := r.picture(2 * chunk.BlockSize)
	part := r.lease(p)
	r.write(part, p, 0)
	r.ends("Discard", part.Discard)
	r.ends("Keep behind Discard", part.Keep)
	if _, ok, err := r.store.Receipt(t.Context(), p.id); ok || err != nil {
		t.Errorf("Receipt of an image that was discarded: %v, %v", ok, err)
	}
	part = r.lease(p)
	r.holds(part, p)
	r.write(part, p, 0, 1)
	r.kept(p, r.commit(part, p))
}

func checkStoreRestart(t testing.TB, k storeKit) {
	if !k.Restarts {
		t.Skip("Restarts is not claimed")
	}
	r := k.rig(t)
	whole, partial := r.picture(chunk.BlockSize+1), r.picture(2*chunk.BlockSize)
	name := r.deliver(whole)
	part := r.lease(partial)
	r.write(part, partial, 1)
	r.ends("Keep", part.Keep)
	r.close()
	r.store = r.open()
	r.kept(whole, name)
	part = r.lease(partial)
	if k.Keeps {
		r.holds(part, partial, 1)
	}
	r.write(part, partial, 0)
	if !k.Keeps {
		r.write(part, partial, 1)
	}
	r.kept(partial, r.commit(part, partial))
}
