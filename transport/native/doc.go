// Package native carries the native protocol (SPEC.md) over a medium of your own, with its
// resume, receipts, priorities and digests. Packages tcpx, udpx and mqttx carry the same protocol
// over TCP, UDP and MQTT.
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
// A medium that moves bytes, such as a serial line, becomes a [Link] by [Stream], which frames
// messages, detects lost and changed bytes and finds the next message after them. A medium that
// moves messages implements [Link] itself. It may lose messages and, unless it says Ordered,
// reorder them, but it must never deliver a changed or cut one. [Over] makes a
// transport.Transport of either.
//
// The side that dials opens the link again when it is lost, and transfers continue. [OneAtATime]
// listens on a medium with one peer; for others implement [LinkListener].
//
// Package transporttest checks a Link (TestLink), and with its Faults a whole Transport over bad
// links (TestTransport).
package native
