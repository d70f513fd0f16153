// Package transporttest has conformance kits for implementations of interfaces: [TestTransport]
// checks a [transport.Transport], [TestLink] a [native.Link] and [TestStore] a [transport.Store].
// A kit checks what the interface promises for all, and the properties that the implementation
// claims, and no others. [Faults] loses, doubles, reorders and changes the messages of a Link in
// a way that its seed repeats.
//
// A kit is one call in a test of your package:
//
//	func TestConformance(t *testing.T) {
//		transporttest.TestLink(t, func(t testing.TB) (a, b native.Link) {
//			return serialPair(t)
//		}, transporttest.LinkProperties{Ordered: true, MaxMessage: 1024})
//	}
//
// Every check is a subtest with a fresh medium, waits at most 20 seconds for anything, and ends
// by looking for goroutines that were left behind. Do not run other tests of the package in
// parallel with a kit.
package transporttest
