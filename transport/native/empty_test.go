package native_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/arq"
	proto "github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// Nothing is kept before its sender has said what the digest is: not even an image of no bytes, all of which are there.
func TestEmptyImageWaitsForItsDigest(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *ends) {
		link, err := e.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer link.Close()
		sender := arq.New(arq.Config{
			Initiator: true, Ordered: true, Reliable: true, MaxMessage: 4096, LocalCID: 1, RemoteCID: 2,
			Local: proto.Hello{MaxMessage: 4096, AckRanges: 1},
		}, time.Now())
		flush := func() {
			for buf := make([]byte, 4096); ; {
				n := sender.Poll(time.Now(), buf)
				if n == 0 {
					break
				}
				if err := link.WriteMessage(buf[:n]); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		meta := (&proto.Metadata{Name: "empty"}).Append(nil)
		handle, err := sender.Offer(&proto.Offer{ID: transport.NewID(), Attempt: 1, Oldest: 1, Algorithm: transport.XXH3.ID, MetaSize: uint16(len(meta)), Meta: meta})
		if err != nil {
			t.Fatal(err)
		}
		flush()
		if _, kept := e.kept.Get("empty"); kept {
			t.Error("it was kept before its digest came")
		}
		digest, _ := chunk.NewTree(transport.XXH3).Root(0)
		if err := sender.Finish(handle, 0, digest); err != nil {
			t.Fatal(err)
		}
		flush()
		e.holds("empty", nil)
	})
}
