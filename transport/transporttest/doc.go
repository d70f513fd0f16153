// Package transporttest holds implementations to their word. [TestTransport]
// checks a [transport.Transport], [TestLink] a [native.Link] and [TestStore] a
// [transport.Store] against what the interfaces promise for all, and against the
// properties that the implementation claims, and no others. [Faults] is a medium that loses,
// doubles, reorders and changes messages in a way that its seed repeats.
//
// A kit is one call in a test of your package:
//
//	func TestConformance(t *testing.T) {
//		transporttest.TestLink(t, func(t testing.TB) (a, b native.Link) {
//			return serialPair(t)
//		}, transporttest.LinkProperties{Ordered: true, MaxMessage: 1024})
//	}
//
// Every check is a subtest of its own with a fresh medium, waits at most 20
// seconds for anything, and ends with a search for goroutines that were left
// behind. Do not run other tests of the package in parallel with a kit.
package transporttest
