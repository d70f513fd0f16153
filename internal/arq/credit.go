package arq

import (
	"math"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

// What may be in flight before the peer's HELLO says more: an unproven session's share.
const (
	earlyBytes    = 64 << 10
	earlyMessages = 64
)

// sendCredit is the peer's window and what of it is in use. DATA alone counts.
type sendCredit struct {
	bytes    int64
	messages int
	setBy    int64 // number of the message that set it; the newest counts
	most     int64 // largest bytes so far

	inFlight int64 // payload of messages sent and neither acknowledged nor lost
	count    int   // such messages
}

func newSendCredit() sendCredit {
	return sendCredit{bytes: earlyBytes, messages: earlyMessages, setBy: -1, most: earlyBytes}
}

// set notes the window in message number.
func (c *sendCredit) set(number, bytes int64, messages uint16) {
	if number < c.setBy {
		return
	}
	c.setBy = number
	c.bytes, c.messages = bytes, int(messages)
	c.most = max(c.most, c.bytes)
	if messages == wire.NoMessageLimit {
		c.messages = math.MaxInt
	}
}

// left returns how many bytes of payload the next message may have.
func (c *sendCredit) left() int64 {
	if c.count >= c.messages {
		return 0
	}
	return max(c.bytes-c.inFlight, 0)
}

// allows reports whether a message with n bytes of payload, or as many of them as are left,
// may be sent. A window too small for all is used only when nothing is in flight, lest
// messages get ever smaller.
func (c *sendCredit) allows(n int64) bool {
	left := c.left()
	return left >= n || left > 0 && c.inFlight == 0
}

func (c *sendCredit) sent(n int64) { c.inFlight += n; c.count++ }
func (c *sendCredit) done(n int64) { c.inFlight -= n; c.count-- }

// receiveCredit is this side's window.
type receiveCredit struct {
	maxBytes, waiting         int64 // of payload that waits for disk or program
	maxMessages, waitingCount int
	allowed                   int64 // by the owner
	growth                    growth

	toldBytes    int64 // the window in the last ACK
	toldMessages int
	since        int64 // bytes received since the last ACK
	most         int64 // that may wait by the windows told so far
}

func newReceiveCredit(cfg *Config) receiveCredit {
	c := receiveCredit{growth: growth{limit: math.MaxInt64}}
	if cfg.FirstWindow > 0 {
		c.growth.limit = int64(cfg.FirstWindow)
	}
	c.setMax(int(cfg.Local.Window), int(cfg.Local.Messages))
	c.toldBytes, c.toldMessages = c.maxBytes, c.maxMessages
	c.most = max(c.maxBytes, earlyBytes)
	return c
}

func (c *receiveCredit) setMax(bytes, messages int) {
	c.allowed = min(max(int64(bytes), 0), 1<<32-1)
	c.maxBytes = min(c.allowed, c.growth.limit)
	c.maxMessages = min(max(messages, 0), wire.NoMessageLimit)
}

// growth is a window that follows the path, as TCP's does (dynamic right-sizing).
type growth struct {
	limit int64         // of the window
	began time.Duration // the round trip
	bytes int64         // consumed in it
}

const (
	longPath     = 50 * time.Millisecond // shorter ones are filled by the first window, and their round trip may be mere lateness
	growthFactor = 8                     // a sender that starts up multiplies what is in flight by seven each round trip (cc.Rate)
)

// grow keeps the window at growthFactor times what the owner consumes in a round trip. What has not been
// delivered, or waits, does not count.
func (c *receiveCredit) grow(now, rtt time.Duration, consumed int64) {
	g := &c.growth
	if rtt < longPath || g.limit >= c.allowed {
		return
	}
	if now-g.began >= rtt {
		g.began, g.bytes = now, 0
	}
	g.bytes += consumed
	if g.limit < growthFactor*g.bytes {
		g.limit = growthFactor * g.bytes
		c.maxBytes = min(c.allowed, g.limit)
	}
}

func (c *receiveCredit) received(n int64) {
	c.waiting += n
	c.waitingCount++
	c.since += n
}

func (c *receiveCredit) consumed(bytes int64, count int) {
	c.waiting = max(c.waiting-bytes, 0)
	c.waitingCount = max(c.waitingCount-count, 0)
}

func (c *receiveCredit) window() (bytes int64, messages int) {
	bytes = max(c.maxBytes-c.waiting, 0)
	if c.maxMessages == wire.NoMessageLimit {
		return bytes, wire.NoMessageLimit
	}
	return bytes, max(c.maxMessages-c.waitingCount, 0)
}

// reopened reports whether the peer, told of less than half of the window, may use a quarter more.
func (c *receiveCredit) reopened() bool {
	bytes, messages := c.window()
	return 2*c.toldBytes < c.maxBytes && bytes-c.toldBytes >= max(c.maxBytes/4, 1) ||
		2*c.toldMessages < c.maxMessages && messages-c.toldMessages >= max(c.maxMessages/4, 1)
}

// used reports whether the peer has used an eighth of the window since the last ACK.
func (c *receiveCredit) used() bool { return c.since > 0 && c.since >= c.maxBytes/8 }

// tell returns the window for an ACK.
func (c *receiveCredit) tell() (bytes uint32, messages uint16) {
	c.toldBytes, c.toldMessages = c.window()
	c.since = 0
	c.most = max(c.most, c.waiting+c.toldBytes)
	return uint32(c.toldBytes), uint16(c.toldMessages)
}
