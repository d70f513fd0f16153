package session

import (
	"log/slog"
	"math"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// Config is native.Config, described there. With Messages, Window bytes and so many
// messages are for all sessions of the Endpoint together.
type Config struct {
	Idle      time.Duration
	Window    int // 0: defaultWindow, which grows on long paths
	Messages  int
	Transfers int
	Digest    chunk.Algorithm
	Logger    *slog.Logger
	Coder     arq.Coder // repairs small images on links that lose; nil: they are not repaired

	largest int // what Window grows to
}

const (
	defaultIdle      = 30 * time.Second
	defaultWindow    = 8 << 20
	largestWindow    = 40 << 20 // twice what 250 Mbit/s over a satellite hold
	defaultTransfers = 64

	maxMessage  = 1 << 20  // of a transport.Message; the Inbox has the lower limit
	maxMetadata = 32 << 10 // of an offer; the same

	// A peer that has accepted a session on an unordered link, where nobody tells of the
	// other's end, gives it up after lingerIdle idle times without traffic, at least leastLinger.
	lingerIdle  = 10
	leastLinger = 5 * time.Minute

	serveTime = 3 * time.Second // an offer waits so long for Serve
	flushTime = time.Second     // an orderly end takes at most so long

	receiptTime = 10 * time.Millisecond // for a receipt that is just being made when nobody waits any more
)

func (c Config) withDefaults() Config {
	if c.Idle <= 0 {
		c.Idle = defaultIdle
	}
	c.largest = c.Window
	if c.Window <= 0 {
		c.Window, c.largest = defaultWindow, largestWindow
	}
	if c.Transfers <= 0 {
		c.Transfers = defaultTransfers
	}
	if c.Digest.New == nil {
		known, ok := transport.AlgorithmByID(c.Digest.ID)
		if c.Digest = transport.XXH3; ok {
			c.Digest = known
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// hello is what this side can take.
func (e *Endpoint) hello(info LinkInfo) wire.Hello {
	c := &e.cfg
	largest := info.MaxMessage
	for _, size := range info.Sizes {
		largest = max(largest, size)
	}
	return wire.Hello{
		MaxMessage:   uint32(largest),
		Window:       uint32(min(int64(e.pool.firstBytes), math.MaxUint32)),
		Messages:     uint16(min(e.pool.firstMessages, math.MaxUint16)),
		AckRanges:    256,
		Transfers:    uint16(min(c.Transfers, math.MaxUint16)),
		Metadata:     maxMetadata,
		MessageBytes: maxMessage,
		Reorder:      math.MaxUint32, // bytes are written where they belong, in any order
		IdleMillis:   uint32(min(c.Idle.Milliseconds(), math.MaxUint32)),
		Instance:     e.instance,
	}
}

// readAhead is how many bytes of a body may be read and not yet sent. On a reliable link, where
// no more than these are held, it is enough for the worker to come late.
func readAhead(info LinkInfo) int {
	if info.reliable() {
		return 4 * largePiece
	}
	return 2 * largePiece
}
