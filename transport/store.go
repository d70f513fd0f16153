package transport

import (
	"context"
	"io"

	"github.com/pixferry/pixferry/chunk"
)

// A Store keeps images and remembers receipts. It is safe for concurrent use.
// [DirStore] and [MemStore] are the ones here. One of your own may embed one of them, and
// transporttest.TestStore holds it to what is promised here.
type Store interface {
	// Open leases a partial image: one that survived under the offer's key, which
	// stands for its name, size and algorithm too, or a new one. A *RejectedError, of this and of all other methods, reaches
	// the sender as it is, any other error as ReasonDisk, retryable: with the text of a syscall.Errno in it,
	// or none. Logger and Hooks hear all of it.
	Open(ctx context.Context, o PartialOffer) (Partial, error)
	// Receipt returns the receipt that is remembered for an ID. It is asked
	// before Open: an image whose Commit failed half-way may be finished here. Server.Serve
	// asks once for the zero ID, which has none: an error says that the Store cannot work.
	Receipt(ctx context.Context, id ID) (Receipt, bool, error)
	// Forget drops the receipts of a sender instance with counters below one,
	// so that memory grows with senders and not with transfers.
	Forget(instance, below uint64)
}

// A PartialOffer says for which image a Store is to lease a Partial.
type PartialOffer struct {
	ID        ID
	Key       string // resume key; empty: not resumable
	Image     Image  // metadata
	Size      int64  // -1: unknown
	Algorithm chunk.Algorithm
}

// A Partial is a leased image on its way in. One goroutine at a time uses it,
// but ReadAt may run beside WriteAt of other ranges. It ends with Commit, Keep
// or Discard; after that Keep and Discard do nothing. Two leases never share
// content, even those of one key.
type Partial interface {
	io.ReaderAt
	io.WriterAt
	// Held returns the complete blocks that survived an earlier lease, in any order.
	Held() []chunk.Block
	// Checkpoint remembers that these blocks are written. They, and those held,
	// are written again only after a Drop: a crash would leave them wrong.
	Checkpoint(blocks []chunk.Block) error
	// Drop forgets held blocks, because the sender's content differs.
	Drop(indices []int64) error
	// Commit makes content and receipt durable in one recoverable step and
	// returns the final name. The metadata is final only here: a name that the
	// protocol did not carry comes from the ID and the bytes. img.Name is never
	// empty; img.Body is not set. The size is r.Bytes. If it fails, end the lease with Keep or Discard.
	// The context does not end. An ID that is remembered stores nothing, and returns no name.
	Commit(ctx context.Context, img *Image, r Receipt) (name string, err error)
	// Keep gives up the lease and keeps the content for a resume.
	Keep() error
	// Discard gives up the lease and the content.
	Discard() error
}
