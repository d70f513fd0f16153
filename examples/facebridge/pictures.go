package main

import (
	"context"

	"github.com/pixferry/pixferry/transport"
)

// keep stores the picture of a record that is in the outbox. The record comes first: a
// full disk must not hold it up, so that a picture that cannot be kept is only counted.
func (b *bridge) keep(ctx context.Context, in *transport.Incoming) {
	if b.store == nil {
		return
	}
	if err := store(ctx, b.store, in); err != nil {
		b.log.Warn("a picture was not kept", "sn", in.Peer, "err", err)
		b.counts.unkept()
	}
}

// store puts an image into a Store, which knows one that it has by its ID.
func store(ctx context.Context, s transport.Store, in *transport.Incoming) error {
	content, err := in.Image.Body.ReadAll(ctx)
	if err != nil {
		return err
	}
	img := *in.Image
	img.Body = transport.Body{}
	size := int64(len(content))
	part, err := s.Open(ctx, transport.PartialOffer{ID: in.ID, Image: img, Size: size})
	if err != nil {
		return err
	}
	defer part.Discard() // does nothing after Commit
	if _, err := part.WriteAt(content, 0); err != nil {
		return err
	}
	_, err = part.Commit(context.WithoutCancel(ctx), &img, transport.Receipt{ID: in.ID, Level: transport.Received, Digest: in.Digest, Bytes: size})
	return err
}
