package transporttest

import (
	"net"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// A MakeTransport makes a fresh medium. It returns the transport of the listening side, and a
// function that returns that of the dialling side for the listener's address. It registers what
// is to be freed with t.Cleanup.
type MakeTransport func(t testing.TB) (listen transport.Transport, dial func(addr net.Addr) transport.Transport)

// Properties are what a transport claims beyond what all promise. A claim that is not made is not
// checked: the checks that need it are skipped and say so.
type Properties struct {
	// Confirms is the highest level that Send reaches.
	Confirms transport.Level
	// MinSize and MaxSize bound an image in bytes; a MaxSize of 0: no limit.
	MinSize, MaxSize int64
	// Boundaries are the sizes of the protocol's parts (chunks, blocks, packages). Images of each
	// size, and of one byte less and more, are sent.
	Boundaries []int64
	// Large is the size of a large image; 0: 8 MiB, or MaxSize if that is less.
	Large int64
	// UnknownSize: bodies of unknown size can be sent.
	UnknownSize bool
	// Names, and Metadata (media type, source, time to the millisecond, Meta), arrive as they
	// were sent.
	Names, Metadata bool
	// IDs: IDs arrive, so that an image that was kept is not taken twice.
	IDs bool
	// Digests: receipts have digests.
	Digests bool
	// Rejections: refusals reach the sender with their reason.
	Rejections bool
	// SingleUse: a Conn carries one image.
	SingleUse bool
	// Aborts: an image can be given up half-way without the end of the Conn.
	Aborts bool
	// Concurrency is how many images a Conn carries at once; 0: 1.
	Concurrency int
	// Messages is the size of the largest message in bytes; 0: there are none.
	Messages int
	// BothWays: the listening side can send too, and the dialling side serve.
	BothWays bool
	// TellsClose: when one side closes, the other side's calls end.
	TellsClose bool
	// Live: a newer live frame replaces an older one.
	Live bool
	// Resume: an image continues over the next Conn where the last one ended.
	Resume bool
	// Bubble runs every check in a testing/synctest bubble, for transports that block only on
	// channels and timers.
	Bubble bool
}

// TestTransport checks the transports that make returns against what the interfaces of package
// transport promise and against their properties.
func TestTransport(t *testing.T, make MakeTransport, p Properties) {
	runAll(t, transportChecks, transportKit{make, p}, p.Bubble)
}

type transportKit struct {
	make MakeTransport
	Properties
}

// transferTime is enough for a small image to arrive: in virtual time, which costs
// nothing, over a network that loses much too.
func (k *transportKit) transferTime() time.Duration {
	if k.Bubble {
		return 10 * time.Second
	}
	return 200 * time.Millisecond
}

var transportChecks = []check[transportKit]{
	{"Info", checkInfo},
	{"Sizes", checkSizes},
	{"UnknownSize", checkUnknownSize},
	{"Streaming", checkStreaming},
	{"Concurrent", checkConcurrent},
	{"Parallel", checkParallel},
	{"SendAll", checkSendAll},
	{"Names", checkNames},
	{"Metadata", checkMetadata},
	{"Progress", checkProgress},
	{"Duplicates", checkDuplicates},
	{"Rejection", checkRejection},
	{"Retry", checkRetry},
	{"Require", checkRequire},
	{"TooLarge", checkTooLarge},
	{"BadSource", checkBadSource},
	{"Cancel", checkCancel},
	{"EndedContext", checkEndedContext},
	{"ContextEnds", checkContextEnds},
	{"Close", checkClose},
	{"CloseServing", checkCloseServing},
	{"ListenerClose", checkListenerClose},
	{"PeerClose", checkPeerClose},
	{"Outcome", checkOutcome},
	{"ServeOnce", checkServeOnce},
	{"ServeContext", checkServeContext},
	{"NotServing", checkNotServing},
	{"Messages", checkMessages},
	{"BothWays", checkBothWays},
	{"Shutdown", checkShutdown},
	{"Live", checkLive},
	{"Resume", checkResume},
}
