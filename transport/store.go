package transport

import (
	"context"
	"io"

	"github.com/pixferry/pixferry/chunk"
)

// A Store keeps images and remembers receipts. It is safe for concurrent use. [DirStore] and
// [MemStore] are Stores. Your own may embed one of them; transporttest.TestStore checks it
// against what is promised here.
//
// A *RejectedError of any method reaches the sender as it is, and a *TooLargeError as
// ReasonTooLarge. Any other error is ReasonDisk, retryable, for the sender, who gets none of its
// text but that of a syscall.Errno in it. Logger and Hooks get all of it.
type Store interface {
	// Open leases a partial image: one that was kept under the offer's Key, or a new one.
	Open(ctx context.Context, o PartialOffer) (Partial, error)
	// Receipt returns the remembered receipt of an ID. It is called before Open, and may finish
	// an image whose Commit has failed half-way. Server.Serve calls it once with the zero ID,
	// which has no receipt: an error says that the Store cannot work.
	Receipt(ctx context.Context, id ID) (Receipt, bool, error)
	// Forget drops the receipts of a sender instance with counters lower than below, so that
	// memory grows with the number of senders, not of transfers.
	Forget(instance, below uint64)
}

// A PartialOffer says for which image a Store is to lease a Partial.
type PartialOffer struct {
	ID        ID
	Key       string // resume key, which covers sender, name, size and algorithm; empty: not resumable
	Image     Image  // metadata
	Size      int64  // -1: unknown
	Algorithm chunk.Algorithm
}

// A Partial is a leased image on its way in. One goroutine at a time uses it, but ReadAt may run
// beside WriteAt of other ranges. The lease ends with Commit, Keep or Discard; after that Keep
// and Discard do nothing. Two leases never share content, not even of one Key.
type Partial interface {
	io.ReaderAt
	io.WriterAt
	// Held returns the complete blocks that were kept by an earlier lease, in any order.
	Held() []chunk.Block
	// Checkpoint remembers that these blocks are written. They, and those of Held, are not
	// written again before a Drop: after a crash they would be wrong.
	Checkpoint(blocks []chunk.Block) error
	// Drop forgets held blocks, because the sender's content differs.
	Drop(indices []int64) error
	// Commit makes content and receipt durable in one recoverable step and returns the final
	// name. Only here is the metadata final: a name that the protocol does not carry is made of
	// the ID and the bytes. img.Name is not empty, img.Body is not set, and the size is r.Bytes.
	// ctx is never cancelled. For an ID with a remembered receipt Commit stores nothing and
	// returns no name. After an error, Keep or Discard ends the lease.
	Commit(ctx context.Context, img *Image, r Receipt) (name string, err error)
	// Keep ends the lease and keeps the content for a resume.
	Keep() error
	// Discard ends the lease and discards the content.
	Discard() error
}
