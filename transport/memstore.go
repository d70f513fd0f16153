package transport

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/pixferry/pixferry/chunk"
)

const (
	defaultMaxBytes = 256 << 20
	memPage         = 32 << 10 // in which a chunk.Buffer takes memory
	memOverhead     = 1 << 10  // reckoned for an image without its bytes
)

// A MemStore is a Store that keeps images and receipts in memory. The zero value is ready to use.
// An image whose name is taken is kept beside the old one, as "name (1).jpg". Refusals are
// *RejectedError: ReasonTooLarge, or ReasonBusy (retryable) while there is no room.
//
// A MemStore is safe for concurrent use, and must not be changed or copied after its first use.
type MemStore struct {
	// MaxBytes bounds the memory for images, partial and kept; 0: 256 MiB. Partial images that
	// wait for their senders give way to new ones, the oldest first. Kept images never do: remove
	// them with Delete.
	MaxBytes int64
	// MaxReceipts is how many receipts are remembered, the latest ones; 0: 65,536. Each takes
	// about 250 bytes.
	MaxReceipts int

	receiptsOnly bool // images are dropped at their Commit

	mu       sync.Mutex
	used     int64
	receipts receipts
	kept     map[string]*memPartial
	idle     []*memPartial // wait for their senders, the oldest first
}

var _ Store = (*MemStore)(nil)

// prepare makes the maps. The caller holds mu.
func (s *MemStore) prepare() {
	if s.kept == nil {
		s.kept = make(map[string]*memPartial)
		s.receipts = newReceipts(s.MaxReceipts)
	}
}

func (s *MemStore) maxBytes() int64 { return cmp.Or(s.MaxBytes, defaultMaxBytes) }

// Get returns a kept image by its name, ready to be read or sent on. It stays readable after
// Delete.
func (s *MemStore) Get(name string) (*Image, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.kept[name]
	if !ok {
		return nil, false
	}
	return p.image(name), true
}

// All yields the images that are kept at the time of the call, in the order of their names.
func (s *MemStore) All() iter.Seq[*Image] {
	s.mu.Lock()
	defer s.mu.Unlock()
	images := make([]*Image, 0, len(s.kept))
	for _, name := range slices.Sorted(maps.Keys(s.kept)) {
		images = append(images, s.kept[name].image(name))
	}
	return slices.Values(images)
}

// Delete removes a kept image and reports whether there was one. Its receipt stays.
func (s *MemStore) Delete(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.kept[name]
	if ok {
		delete(s.kept, name)
		s.used -= p.charged
	}
	return ok
}

// Open implements [Store].
func (s *MemStore) Open(ctx context.Context, o PartialOffer) (Partial, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.Size > s.maxBytes() {
		return nil, s.tooLarge(o.Size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prepare()
	keys := makeJournalKeys(o)
	for i, p := range s.idle {
		if p.keys.id == keys.id || p.keys.key == keys.key {
			s.idle = slices.Delete(s.idle, i, i+1)
			p.ended = false
			return p, nil
		}
	}
	p := &memPartial{store: s, keys: keys, content: chunk.NewBuffer(s.maxBytes()), base: memOverhead}
	for k, v := range o.Image.Meta {
		p.base += int64(len(k) + len(v))
	}
	if err := s.reserve(p, p.base); err != nil {
		return nil, err
	}
	return p, nil
}

// Receipt implements [Store].
func (s *MemStore) Receipt(_ context.Context, id ID) (Receipt, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.receipts.get(id)
	return r, ok, nil
}

// Forget implements [Store].
func (s *MemStore) Forget(instance, below uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prepare()
	s.receipts.forget(instance, below)
}

func (s *MemStore) tooLarge(size int64) error {
	return reject(ReasonTooLarge, "an image of %d bytes does not fit the receiver's memory of %d: its program needs a larger MemStore.MaxBytes, or a DirStore", size, s.maxBytes())
}

// reserve reckons n more bytes to a partial image. The caller holds mu.
func (s *MemStore) reserve(p *memPartial, n int64) error {
	for s.used+n > s.maxBytes() && len(s.idle) > 0 {
		s.used -= s.idle[0].charged
		s.idle = slices.Delete(s.idle, 0, 1)
	}
	if p.charged+n > s.maxBytes() {
		return s.tooLarge(p.charged + n)
	}
	if s.used+n > s.maxBytes() {
		return later(ReasonBusy, "the receiver's memory is full at the moment: send again later")
	}
	s.used += n
	p.charged += n
	return nil
}

// A memPartial is an image in a MemStore: leased, waiting or kept.
type memPartial struct {
	store   *MemStore
	keys    journalKeys // zero: not resumable
	content *chunk.Buffer
	held    []chunk.Block
	base    int64 // reckoned without the bytes
	charged int64 // part of store.used
	ended   bool  // not leased
	meta    Image // once kept
	size    int64
}

func (p *memPartial) image(name string) *Image {
	img := p.meta
	img.Name, img.Meta, img.Body = name, maps.Clone(p.meta.Meta), Content(p.content, p.size)
	return &img
}

// ReadAt implements io.ReaderAt.
func (p *memPartial) ReadAt(b []byte, off int64) (int, error) { return p.content.ReadAt(b, off) }

// WriteAt implements io.WriterAt.
func (p *memPartial) WriteAt(b []byte, off int64) (int, error) {
	if p.ended {
		return 0, errEnded
	}
	limit := p.store.maxBytes()
	if off < 0 || off > limit-int64(len(b)) {
		return 0, p.store.tooLarge(off + int64(len(b)))
	}
	end := (off + int64(len(b)) + memPage - 1) / memPage * memPage
	if more := end + p.base - p.charged; more > 0 && len(b) > 0 {
		p.store.mu.Lock()
		err := p.store.reserve(p, more)
		p.store.mu.Unlock()
		if err != nil {
			return 0, err
		}
	}
	return p.content.WriteAt(b, off)
}

// Held implements [Partial].
func (p *memPartial) Held() []chunk.Block { return slices.Clone(p.held) }

// Checkpoint implements [Partial].
func (p *memPartial) Checkpoint(blocks []chunk.Block) error {
	if p.keys != (journalKeys{}) {
		p.held = append(p.held, blocks...)
	}
	return nil
}

// Drop implements [Partial].
func (p *memPartial) Drop(indices []int64) error {
	p.held = slices.DeleteFunc(p.held, func(b chunk.Block) bool { return slices.Contains(indices, b.Index) })
	return nil
}

// Commit implements [Partial]. A second one of an ID that is remembered stores
// nothing and returns no name.
func (p *memPartial) Commit(ctx context.Context, img *Image, r Receipt) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if p.ended {
		return "", errEnded
	}
	if have := p.content.Size(); have < r.Bytes {
		return "", incomplete(have, r.Bytes)
	}
	s := p.store
	s.mu.Lock()
	defer s.mu.Unlock()
	_, twice := s.receipts.get(r.ID)
	p.ended = true
	if !twice {
		s.receipts.add(r)
	}
	if twice || s.receiptsOnly {
		s.used -= p.charged
		return "", nil
	}
	number, err := freeNumber(func(n int) (bool, error) { return s.kept[numbered(img.Name, n)] != nil, nil })
	name := numbered(img.Name, number)
	p.meta, p.size, p.held = *img, r.Bytes, nil
	p.meta.Meta = maps.Clone(img.Meta)
	s.kept[name] = p
	return name, err
}

// Keep implements [Partial]. What cannot be resumed is discarded.
func (p *memPartial) Keep() error {
	if p.ended || len(p.held) == 0 {
		return p.Discard()
	}
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	p.ended = true
	p.store.idle = append(p.store.idle, p)
	return nil
}

// Discard implements [Partial].
func (p *memPartial) Discard() error {
	if p.ended {
		return nil
	}
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	p.ended = true
	p.store.used -= p.charged
	return nil
}
