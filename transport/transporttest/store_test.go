package transporttest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/transport"
)

func TestMemStore(t *testing.T) {
	TestStore(t, memStore(nil), memStoreProperties)
}

func TestDirStore(t *testing.T) {
	for name, existing := range map[string]transport.Existing{"KeepBoth": transport.KeepBoth, "Replace": transport.Replace, "Refuse": transport.Refuse} {
		t.Run(name, func(t *testing.T) {
			var dir string
			TestStore(t, func(t testing.TB) func() transport.Store {
				dir = t.TempDir()
				return func() transport.Store { return &transport.DirStore{Dir: dir, Existing: existing} }
			}, StoreProperties{
				Content: func(_ transport.Store, name string) ([]byte, error) {
					return os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
				},
				Keeps: true, Restarts: true,
			})
		})
	}
}

var memStoreProperties = StoreProperties{Keeps: true, Content: func(s transport.Store, name string) ([]byte, error) {
	if l, ok := s.(*lyingStore); ok {
		s = l.MemStore
	}
	img, ok := s.(*transport.MemStore).Get(name)
	if !ok {
		return nil, fs.ErrNotExist
	}
	return img.Body.ReadAll(context.Background())
}}

// memStore makes a MemStore, or one that lies.
func memStore(lies *lyingStore) MakeStore {
	return func(testing.TB) func() transport.Store {
		return func() transport.Store {
			if lies == nil {
				return new(transport.MemStore)
			}
			s := *lies
			s.MemStore = new(transport.MemStore)
			return &s
		}
	}
}

// lyingStore breaks the promises that are set.
type lyingStore struct {
	*transport.MemStore
	receipt func(r transport.Receipt, ok bool) (transport.Receipt, bool)
	forget  func(s *transport.MemStore, instance, below uint64)
	key     func(key string) string
	id      func(id transport.ID) transport.ID
	partial func(p transport.Partial) transport.Partial
}

func (s *lyingStore) Open(ctx context.Context, o transport.PartialOffer) (transport.Partial, error) {
	if s.key != nil {
		o.Key = s.key(o.Key)
	}
	if s.id != nil {
		o.ID = s.id(o.ID)
	}
	p, err := s.MemStore.Open(ctx, o)
	if err == nil && s.partial != nil {
		p = s.partial(p)
	}
	return p, err
}

func (s *lyingStore) Receipt(ctx context.Context, id transport.ID) (transport.Receipt, bool, error) {
	r, ok, err := s.MemStore.Receipt(ctx, id)
	if s.receipt != nil {
		r, ok = s.receipt(r, ok)
	}
	return r, ok, err
}

func (s *lyingStore) Forget(instance, below uint64) {
	if s.forget != nil {
		s.forget(s.MemStore, instance, below)
	} else {
		s.MemStore.Forget(instance, below)
	}
}

// lyingPartial breaks those of a lease.
type lyingPartial struct {
	transport.Partial
	write      func(p transport.Partial, b []byte, off int64) (int, error)
	held       func([]chunk.Block) []chunk.Block
	drop, keep func() error
	discard    func(p transport.Partial) error
	commit     func(name string, err error) (string, error)
}

func (p *lyingPartial) WriteAt(b []byte, off int64) (int, error) {
	if p.write != nil {
		return p.write(p.Partial, b, off)
	}
	return p.Partial.WriteAt(b, off)
}

func (p *lyingPartial) Held() []chunk.Block {
	if p.held != nil {
		return p.held(p.Partial.Held())
	}
	return p.Partial.Held()
}

func (p *lyingPartial) Drop(indices []int64) error {
	if p.drop != nil {
		return p.drop()
	}
	return p.Partial.Drop(indices)
}

func (p *lyingPartial) Keep() error {
	if p.keep != nil {
		return p.keep()
	}
	return p.Partial.Keep()
}

func (p *lyingPartial) Discard() error {
	if p.discard != nil {
		return p.discard(p.Partial)
	}
	return p.Partial.Discard()
}

func (p *lyingPartial) Commit(ctx context.Context, img *transport.Image, r transport.Receipt) (string, error) {
	name, err := p.Partial.Commit(ctx, img, r)
	if p.commit != nil {
		name, err = p.commit(name, err)
	}
	return name, err
}

// Each Store breaks one promise, and the check of that promise says so.
func TestStoreLies(t *testing.T) {
	of := func(lies lyingPartial) *lyingStore {
		return &lyingStore{partial: func(p transport.Partial) transport.Partial {
			l := lies
			l.Partial = p
			return &l
		}}
	}
	for _, c := range []struct {
		name, check, says string
		store             *lyingStore
	}{
		{"a byte is changed", "Sizes", "others than were written", of(lyingPartial{write: func(p transport.Partial, b []byte, off int64) (int, error) {
			if b = append([]byte(nil), b...); len(b) > 0 {
				b[len(b)-1] ^= 1
			}
			return p.WriteAt(b, off)
		}})},
		{"no name", "Sizes", "returns no name", of(lyingPartial{commit: func(_ string, err error) (string, error) { return "", err }})},
		{"another name", "Sizes", "is kept as", of(lyingPartial{commit: func(name string, err error) (string, error) { return name + "?", err }})},
		{"the receipt changes", "Sizes", "Receipt of an image that is kept", &lyingStore{receipt: func(r transport.Receipt, ok bool) (transport.Receipt, bool) {
			r.Reused++
			return r, ok
		}}},
		{"receipts of everything", "Receipts", "which nobody has sent", &lyingStore{receipt: func(r transport.Receipt, _ bool) (transport.Receipt, bool) { return r, true }}},
		{"nothing is forgotten", "Receipts", "after Forget", &lyingStore{forget: func(*transport.MemStore, uint64, uint64) {}}},
		{"too much is forgotten", "Receipts", "after Forget", &lyingStore{forget: func(s *transport.MemStore, instance, below uint64) { s.Forget(instance, below+1) }}},
		{"others are forgotten", "Receipts", "after Forget", &lyingStore{forget: func(s *transport.MemStore, instance, below uint64) {
			s.Forget(instance, below)
			s.Forget(78, 10)
		}}},
		{"a second time under another name", "Twice", "want none", of(lyingPartial{commit: func(name string, err error) (string, error) {
			if name == "" {
				name = "again"
			}
			return name, err
		}})},
		{"a refusal that is none", "SameName", "want a *transport.RejectedError", of(lyingPartial{commit: func(name string, err error) (string, error) {
			if name == "image-1 (1).bin" {
				err = errors.New("taken")
			}
			return name, err
		}})},
		{"keys are one", "Keep", "Held: block", &lyingStore{key: func(string) string { return "all" }}},
		{"nothing is kept", "Keep", "want [0 2]", &lyingStore{key: func(string) string { return "" }}},
		{"another block's digest", "Keep", "has the digest", of(lyingPartial{held: func(b []chunk.Block) []chunk.Block {
			for i := range b {
				b[i].Digest = b[0].Digest
			}
			return b
		}})},
		{"what is dropped stays", "Keep", "want [0 3]", of(lyingPartial{drop: func() error { return nil }})},
		{"what is discarded stays", "Discard", "Held: blocks", of(lyingPartial{discard: func(p transport.Partial) error { return p.Keep() }})},
		{"Keep fails when it is over", "Discard", "Keep behind Discard", of(lyingPartial{keep: func() error { return errors.New("it is over") }})},
		{"a restart loses all", "Restart", "Receipt of an image that is kept", &lyingStore{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := memStoreProperties
			p.Restarts = true
			mustComplain(t, storeChecks, c.check, storeKit{memStore(c.store), p}, c.says)
		})
	}
}
