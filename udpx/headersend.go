package udpx

import (
	"context"
	"iter"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/transport"
)

// sendPieces sends an image. An image whose size is a multiple of 1,024 has no empty
// datagram after it, which receivers in the field take for the next header.
func sendPieces(ctx context.Context, l *line, header []byte, pieces iter.Seq2[chunk.Chunk, error], pace pacer, out *transport.Outgoing) error {
	for c, err := range pieces {
		if err == nil && c.Last {
			err = out.Body.Check()
			out.LastByteSent()
		}
		if err != nil {
			return err
		}
		if c.Offset == 0 {
			if err := l.write(header, false); err != nil {
				return err
			}
			pace.wait(time.Now())
		}
		if err := sleep(ctx, pace.wait(time.Now())); err != nil {
			return err
		}
		if err := l.write(c.Data, c.Last); err != nil {
			return err
		}
		out.Count(int64(len(c.Data)))
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// defaultPace leaves most of the usual receive buffer, of about 90 datagrams, to a
// receiver that is slow or has to wait for its turn: 32 at once, for a short image, and
// then 1 MB/s.
var defaultPace = pacer{gap: time.Millisecond, free: 32}

// arrears is what a pacer makes up for at once when it was late: timers are, by about
// 1 ms.
const arrears = 2 * time.Millisecond

// pacer spreads datagrams in time.
type pacer struct {
	gap  time.Duration // between two; negative: none
	free int           // so many do not wait
	due  time.Time     // of the next one
}

// wait returns for how long the next datagram is to wait, and counts it.
func (p *pacer) wait(now time.Time) time.Duration {
	if p.gap < 0 {
		return 0
	}
	if p.free > 0 {
		p.free--
		p.due = now
	}
	if oldest := now.Add(-arrears); p.due.Before(oldest) {
		p.due = oldest
	}
	d := p.due.Sub(now)
	p.due = p.due.Add(p.gap)
	return d
}
