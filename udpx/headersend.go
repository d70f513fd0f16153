package udpx

import (
	"context"
	"iter"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/sleep"
	"github.com/pixferry/pixferry/transport"
)

// sendPieces sends an image. An image whose size is a multiple of 1,024 has no empty
// datagram after it, which receivers in the field take for the next header.
func sendPieces(ctx context.Context, l *line, header []byte, pieces iter.Seq2[chunk.Chunk, error], pace pacer, out *transport.Outgoing) error {
	for c, err := range pieces {
		if err == nil && c.Last {
			if err = out.Body.Check(); err == nil {
				out.LastByteSent()
			}
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
		if err := sleep.For(ctx, pace.wait(time.Now())); err != nil {
			return err
		}
		if err := l.write(c.Data, c.Last); err != nil {
			return err
		}
		out.Count(int64(len(c.Data)))
	}
	return nil
}

// defaultPace leaves most of the usual receive buffer, of about 90 datagrams, to a
// receiver that is slow or has to wait for its turn: 32 at once, for a short image, and
// then 0.5 MB/s. A loop in Python that puts 2 MB together takes up to 0.2 ms for each, and
// on a machine with four programs to a core it stood still for 100 ms in every second
// image, for 200 ms in every fifth.
var defaultPace = pacer{gap: 2 * time.Millisecond, free: 32}

// mostSlower is how often a pace is halved at most.
const mostSlower = 2

// slower is the pace after so many images in a row that were lost.
func (p pacer) slower(lost int) pacer {
	p.gap <<= min(lost, mostSlower)
	return p
}

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
