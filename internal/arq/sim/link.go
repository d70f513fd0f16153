package sim

import (
	"math/rand/v2"
	"time"
)

// Config describes one direction of a path: loss on the way in, a bottleneck with a queue,
// a propagation delay, loss and faults on the way out. The zero value is a perfect link.
type Config struct {
	Rate  int64         // bytes a second through the bottleneck; 0: no bottleneck
	Queue int64         // bytes that wait in front of it; more are dropped. 0: one bandwidth-delay product of 2 Delay
	Burst int64         // bytes that pass it at once after a rest, as a token bucket lets them
	Delay time.Duration // one way

	LossIn  LossModel // before the bottleneck: what is lost has cost it nothing; nil: none
	Loss    LossModel // after it; nil: none
	MTU     int       // larger messages are dropped; 0: none are
	Jitter  time.Duration
	Reorder float64 // probability that a message takes up to ReorderBy longer
	// ReorderBy is how much later a reordered message arrives at most.
	ReorderBy time.Duration
	Duplicate float64 // probability that a message arrives twice
	Corrupt   float64 // probability that a message arrives changed
}

// BDP returns the bandwidth-delay product in bytes of a path whose two directions have
// this delay.
func (c *Config) BDP() int64 {
	return int64(float64(c.Rate) * (2 * c.Delay).Seconds())
}

// takes returns how long the bottleneck takes for so many bytes.
func (c *Config) takes(size int64) time.Duration {
	return time.Duration(float64(size) / float64(c.Rate) * float64(time.Second))
}

// Link is one direction of a path. It has one owner.
type Link struct {
	cfg  Config
	rand *rand.Rand
	busy time.Time // when the bottleneck has sent what is queued
	last time.Time // latest in-order arrival, lest jitter reorders
	down bool

	Stats Stats
}

// Stats count what became of messages.
type Stats struct {
	Sent, Dropped, Lost, Duplicated, Corrupted, Reordered int64 // messages; Dropped by the queue or for their size
	SentBytes, LostBytes                                  int64 // lost ones are the dropped ones too
	MaxQueue                                              int64 // bytes
}

// Delivery is one arrival of a message.
type Delivery struct {
	At      time.Time
	Corrupt bool // flip something in it
}

// NewLink returns a link whose chances come from r.
func NewLink(cfg Config, r *rand.Rand) *Link {
	return &Link{cfg: cfg, rand: r}
}

// Change sets new properties, from the next message on: what is queued keeps its time.
func (l *Link) Change(cfg Config) { l.cfg = cfg }

// Config returns the present properties.
func (l *Link) Config() Config { return l.cfg }

// Down cuts the link, or mends it.
func (l *Link) Down(down bool) { l.down = down }

// Queued returns how many bytes wait in front of the bottleneck.
func (l *Link) Queued(now time.Time) int64 {
	if l.cfg.Rate == 0 || !l.busy.After(now) {
		return 0
	}
	return int64(l.busy.Sub(now).Seconds() * float64(l.cfg.Rate))
}

// Transmit sends a message of size bytes at now and appends its arrivals, none if it is
// lost, to d.
func (l *Link) Transmit(now time.Time, size int, d []Delivery) []Delivery {
	l.Stats.Sent++
	l.Stats.SentBytes += int64(size)
	c := &l.cfg
	if l.down || c.LossIn != nil && c.LossIn.Lost(l.rand) {
		return l.lose(size, d)
	}
	if c.MTU > 0 && size > c.MTU {
		l.Stats.Dropped++
		return l.lose(size, d)
	}
	at := now
	if c.Rate > 0 {
		limit := c.Queue
		if limit == 0 {
			limit = c.BDP()
		}
		queued := l.Queued(now)
		if queued+int64(size) > max(limit, int64(size)) {
			l.Stats.Dropped++
			return l.lose(size, d)
		}
		l.Stats.MaxQueue = max(l.Stats.MaxQueue, queued+int64(size))
		if rested := now.Add(-c.takes(c.Burst)); l.busy.Before(rested) {
			l.busy = rested
		}
		if l.busy = l.busy.Add(c.takes(int64(size))); l.busy.After(now) {
			at = l.busy
		}
	}
	if c.Loss != nil && c.Loss.Lost(l.rand) {
		return l.lose(size, d)
	}
	return l.deliver(at.Add(c.Delay), d)
}

func (l *Link) deliver(at time.Time, d []Delivery) []Delivery {
	c := &l.cfg
	if c.Jitter > 0 {
		at = at.Add(time.Duration(l.rand.Float64() * float64(c.Jitter)))
	}
	if at.Before(l.last) {
		at = l.last
	}
	if c.Reorder > 0 && l.rand.Float64() < c.Reorder {
		at = at.Add(time.Duration(l.rand.Float64() * float64(c.ReorderBy)))
		l.Stats.Reordered++
	} else {
		l.last = at
	}
	d = append(d, Delivery{At: at, Corrupt: c.Corrupt > 0 && l.rand.Float64() < c.Corrupt})
	if d[len(d)-1].Corrupt {
		l.Stats.Corrupted++
	}
	if c.Duplicate > 0 && l.rand.Float64() < c.Duplicate {
		l.Stats.Duplicated++
		d = append(d, Delivery{At: at.Add(time.Duration(l.rand.Float64() * float64(2*c.Delay)))})
	}
	return d
}

func (l *Link) lose(size int, d []Delivery) []Delivery {
	l.Stats.Lost++
	l.Stats.LostBytes += int64(size)
	return d
}
