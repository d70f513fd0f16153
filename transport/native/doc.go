// Package native carries the native protocol (SPEC.md) over a medium of your own:
// resume, receipts, priorities and digests come with it. tcpx, udpx and mqttx are
// the same protocol over theirs.
//
// A medium that moves bytes, such as a serial line, becomes a [Link] by [Stream],
// which frames messages, survives bytes that are lost or changed, and finds back
// into step. A medium that moves messages implements [Link] itself; it may lose
// messages and, unless it says Ordered, disorder them, but it never hands on one
// that was changed or cut. [Over] makes a transport.Transport of either:
//
//	open := func(ctx context.Context) (native.Link, error) {
//		line, err := serial.Open("/dev/ttyUSB0") // any io.ReadWriteCloser
//		if err != nil {
//			return nil, err
//		}
//		return native.Stream(line), nil
//	}
//	t := native.Over(open, native.OneAtATime(open), native.Config{})
//
// The side that dials opens the link anew when it is lost, and transfers go on.
// [OneAtATime] is for media with one peer; others implement [LinkListener].
//
// Package transporttest holds a Link to what it claims (TestLink), and with its
// Faults a whole Transport over bad links (TestTransport).
package native
