package native

import (
	"log/slog"
	"time"

	"github.com/pixferry/pixferry/chunk"
)

// Config are the settings of the native protocol. The zero value works. With a negative number, or an IdleTimeout
// under a millisecond, Dial and Listen fail with transport.ErrConfig.
type Config struct {
	// IdleTimeout is how long the peer may be silent while transfers run, and how
	// long a Conn that has lost its link tries to join the peer again. The smaller
	// one of both peers counts for silence. A peer that is shut down or killed is lost in this
	// sense, one that has called Close is not. 0: 30 s. Without transfers nothing is sent, but by
	// a Conn that was dialled and is served: it asks at a third of this time whether its peer is
	// still there, and so keeps mappings of routers (NAT) open; one that falls silent it joins again
	// however long that takes. An accepted Conn over UDP, where a
	// peer can vanish without a word, ends when nothing was heard for 10 times as long, at
	// least 5 minutes; the peer that dialled begins anew with its next Send.
	IdleTimeout time.Duration
	// Window is how many bytes may be on their way to this side in one session, and
	// so about what a session takes in memory while it receives; one that sends keeps as
	// much until it is acknowledged; over UDP and TCP four fifths of it are given at first, as both
	// ends keep more than that. 0: 8 MiB, which over UDP grows up to 40 MiB on paths that
	// hold so much (a round trip of 50 ms or more, over which 1 MiB arrives and is
	// stored each time). All sessions of a Transport together get at most 32 times 8 MiB,
	// or 32 times Window.
	Window int
	// MaxTransfers is how many transfers a peer may have under way in one session;
	// others wait at the peer. 0: 64.
	MaxTransfers int
	// Digest is the algorithm of digests of what is sent. The zero value is XXH3-128,
	// which finds accidents; [chunk.SHA256] finds forgeries too. Of these two the ID is enough.
	Digest chunk.Algorithm
	// Logger hears about lost links, refused peers and the outages of a broker; nil is silent.
	Logger *slog.Logger
}
