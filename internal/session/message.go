package session

import (
	"context"
	"sync"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// maxAnswers is how many messages are remembered, so that one which is repeated
// because its link died is not taken twice.
const maxAnswers = 4096

// answers remembers the messages that were taken, by their IDs, oldest first.
type answers struct {
	mu   sync.Mutex
	by   map[transport.ID]*answer
	fifo []transport.ID
}

// answer is what became of one message.
type answer struct {
	done chan struct{} // closed when err is valid
	err  error
}

// once waits for what f returns for an ID. It begins f unless it has run with success
// before or runs right now. The context bounds only the waiting: f goes on although
// the link has died, or the peer would send the message again.
func (as *answers) once(ctx context.Context, id transport.ID, f func() error) error {
	as.mu.Lock()
	an := as.by[id]
	if an == nil {
		an = &answer{done: make(chan struct{})}
		as.add(id, an)
		go func() {
			if an.err = f(); an.err != nil {
				as.remove(id)
			}
			close(an.done)
		}()
	}
	as.mu.Unlock()
	select {
	case <-an.done:
		return an.err
	case <-ctx.Done():
		return errUndecided
	}
}

func (as *answers) add(id transport.ID, an *answer) {
	if as.by == nil {
		as.by = make(map[transport.ID]*answer)
	}
	if len(as.fifo) >= maxAnswers {
		delete(as.by, as.fifo[0])
		as.fifo = as.fifo[1:]
	}
	as.by[id] = an
	as.fifo = append(as.fifo, id)
}

// remove forgets a message that was refused; its place in fifo does no harm.
func (as *answers) remove(id transport.ID) {
	as.mu.Lock()
	defer as.mu.Unlock()
	delete(as.by, id)
}

// message receives a message to the program.
func (r *receiving) message(in *transport.Inbox, meta *wire.Metadata, alg chunk.Algorithm) (*wire.Receipt, error) {
	most := min(in.Limits().MaxMessage, maxMessage)
	tooLarge := &transport.RejectedError{Reason: transport.ReasonTooLarge, Text: "the message is over the receiver's limit: send it as an image"}
	if r.offer.Size > int64(most) {
		return nil, tooLarge
	}
	var data []byte
	var fin *wire.Fin
	for fin == nil {
		queue, end, err := r.next()
		if err == nil {
			err = r.write(queue, func(q run) error {
				end := q.offset + int64(len(q.data))
				if end > int64(most) {
					return tooLarge
				}
				if more := int(end) - len(data); more > 0 {
					data = append(data, make([]byte, more)...)
				}
				copy(data[q.offset:], q.data)
				return nil
			})
		}
		if err != nil {
			return nil, err
		}
		fin = end
	}
	if err := verify(data, fin, alg); err != nil {
		return nil, err
	}
	err := r.s.conn.ep.messages.once(r.ctx, r.offer.ID, func() error {
		return in.Message(context.WithoutCancel(r.ctx), transport.Message{Type: meta.MessageType, Data: data})
	})
	if err != nil {
		return nil, err
	}
	return &wire.Receipt{Level: wire.LevelKept, Bytes: fin.Size, Algorithm: fin.Algorithm, Digest: fin.Digest}, nil
}

// verify checks the digest of a message.
func verify(data []byte, fin *wire.Fin, alg chunk.Algorithm) error {
	h := chunk.NewHasher(alg)
	h.Write(data)
	got := h.Root()
	want, err := chunk.NewDigest(fin.Algorithm, fin.Digest)
	switch {
	case err != nil, want.Algorithm() != got.Algorithm(), want.Len() != got.Len():
		return &transport.RejectedError{Reason: transport.ReasonMalformed, Text: "the message's digest is none of the algorithm that was offered"}
	case want != got, int64(len(data)) != fin.Size:
		return &transport.RejectedError{Reason: transport.ReasonDigest, Retryable: true, Text: "the message has changed on its way: send it again"}
	}
	return nil
}
