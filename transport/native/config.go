package native

import (
	"log/slog"
	"time"

	"github.com/pixferry/pixferry/chunk"
)

// Config holds the settings of the native protocol. The zero value works. With a negative number,
// or an IdleTimeout under a millisecond, Dial and Listen fail with transport.ErrConfig.
type Config struct {
	// IdleTimeout is how long the peer may be silent while transfers run; the smaller value of
	// both peers counts. It is also how long a Conn that has lost its link tries to join the peer
	// again: a peer that was killed or shut down counts as lost, one that has called Close does
	// not. 0: 30 s.
	//
	// Without transfers nothing is sent, with one exception: a Conn that was dialled and is
	// served asks at a third of this time whether its peer is still there, which also keeps open
	// what forgets idle connections on the way: a NAT, firewall or proxy that does so after 10 s
	// needs less than 30 s here. If the peer falls silent it tries to join it again without limit.
	// An accepted Conn over UDP, MQTT or another link that is not reliable, where a peer can vanish
	// without a word, ends after 10 times this time in silence, at least 5 minutes; a peer that
	// lives begins a new session with its next Send.
	IdleTimeout time.Duration
	// Window is how many bytes may be on their way to this side in one session: about what a
	// receiving session takes in memory. A sending session keeps as many until they are
	// acknowledged, but, whatever its peer takes, no more than 40 MiB or its own Window. 0: 8 MiB,
	// and over UDP up to 40 MiB on paths that hold so much (a round trip of 50 ms or more, in each
	// of which 1 MiB arrives and is stored). The peer is given four fifths of it over TCP, and at
	// first over UDP, because both ends hold some bytes beyond it. All sessions of a Transport
	// together get 32 times Window, or 32 times 8 MiB. Over MQTT they share one Window; 0: 4 MiB.
	Window int
	// MaxTransfers is how many transfers a peer may have under way in one session; others wait at
	// the peer. 0: 64.
	MaxTransfers int
	// Digest is the algorithm of the digests of what is sent. The zero value means XXH3-128,
	// which detects accidents; [chunk.SHA256] detects forgeries too. The ID of one of these
	// suffices.
	Digest chunk.Algorithm
	// Cubic has this side share its path as TCP does, for networks where that is wanted: CUBIC
	// (RFC 9438) takes each loss for congestion. By default loss counts as congestion only where
	// round trips get longer as well, which is many times faster on paths that lose (docs/bench).
	// It matters over UDP and on links that are not Ordered; others leave this to their medium.
	Cubic bool
	// Logger gets records about lost links, refused peers and the outages of a broker; nil is
	// silent.
	Logger *slog.Logger
}
