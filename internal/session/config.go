package session

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// Settings is native.Config, described there: one converts to the other.
type Settings struct {
	IdleTimeout  time.Duration
	Window       int // 0: defaultWindow, which grows on long paths
	MaxTransfers int
	Digest       chunk.Algorithm
	Cubic        bool
	Logger       *slog.Logger
}

// Config is what the user and the medium want. With Messages, Window bytes and so many
// messages are for all sessions of the Endpoint together.
type Config struct {
	Settings
	Messages int
	Coder    arq.Coder // repairs small images on links that lose; nil: they are not repaired

	largest int // what Window grows to
}

const (
	defaultIdle      = 30 * time.Second
	defaultWindow    = 8 << 20
	largestWindow    = 40 << 20 // twice what 250 Mbit/s over a satellite hold
	defaultTransfers = 64

	maxMessage  = 1 << 20  // of a transport.Message; the Inbox has the lower limit
	maxMetadata = 32 << 10 // of an offer; the same

	// A peer that has accepted a session on a link that is not reliable, where nobody tells of the
	// other's end, gives it up after lingerIdle idle times without traffic, at least leastLinger.
	lingerIdle  = 10
	leastLinger = 5 * time.Minute

	serveTime = 3 * time.Second // an offer waits so long for Serve
	flushTime = time.Second     // an orderly end takes at most so long

	receiptTime = 10 * time.Millisecond // for a receipt that is just being made when nobody waits any more
)

// check says what is wrong with the settings, nil if nothing is.
func (c Config) check() error {
	switch {
	case c.IdleTimeout < 0 || 0 < c.IdleTimeout && c.IdleTimeout < time.Millisecond:
		return fmt.Errorf("%w: Config.IdleTimeout is %v: set it with its unit, for example 30*time.Second, or to 0 for %v", transport.ErrConfig, c.IdleTimeout, defaultIdle)
	case c.Window < 0:
		return fmt.Errorf("%w: Config.Window is %d: set it to a number of bytes, or to 0 for the default", transport.ErrConfig, c.Window)
	case c.MaxTransfers < 0:
		return fmt.Errorf("%w: Config.MaxTransfers is %d: set it to a number of transfers, or to 0 for %d", transport.ErrConfig, c.MaxTransfers, defaultTransfers)
	}
	return nil
}

func (c Config) withDefaults() Config {
	c.IdleTimeout = cmp.Or(c.IdleTimeout, defaultIdle)
	if c.largest = c.Window; c.Window == 0 {
		c.Window, c.largest = defaultWindow, largestWindow
	}
	c.MaxTransfers = cmp.Or(c.MaxTransfers, defaultTransfers)
	if c.Digest.New == nil {
		known, ok := transport.AlgorithmByID(c.Digest.ID)
		if c.Digest = transport.XXH3; ok {
			c.Digest = known
		}
	}
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
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
		Transfers:    uint16(min(c.MaxTransfers, math.MaxUint16)),
		Metadata:     maxMetadata,
		MessageBytes: maxMessage,
		Reorder:      math.MaxUint32, // bytes are written where they belong, in any order
		IdleMillis:   uint32(min(c.IdleTimeout.Milliseconds(), math.MaxUint32)),
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
