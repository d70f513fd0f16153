package native_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
	"github.com/pixferry/pixferry/transport/transporttest"
)

var reliable = native.LinkInfo{Protocol: "mem", Peer: "peer", Ordered: true, Reliable: true, MaxMessage: 64 << 10}

func properties() transporttest.Properties {
	return transporttest.Properties{
		Confirms:    transport.Kept,
		Boundaries:  []int64{64 << 10, 256 << 10, chunk.BlockSize},
		UnknownSize: true, Names: true, Metadata: true, IDs: true, Digests: true, Rejections: true,
		Aborts: true, Concurrency: 8, Messages: 64 << 10, BothWays: true, TellsClose: true, Live: true, Resume: true,
		Bubble: true,
	}
}

func conform(t *testing.T, make func(t testing.TB) *medium, p transporttest.Properties) {
	transporttest.TestTransport(t, func(t testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
		m := make(t)
		return native.Over(nil, m.listen, native.Config{}), func(net.Addr) transport.Transport { return native.Over(m.dial, nil, native.Config{}) }
	}, p)
}

func TestOverReliableLinks(t *testing.T) {
	conform(t, func(testing.TB) *medium { return newMedium(reliable) }, properties())
}

// Links whose writes block until the peer reads, with messages of the smallest size.
func TestOverNarrowLinks(t *testing.T) {
	conform(t, func(testing.TB) *medium {
		m := newMedium(reliable)
		m.info.MaxMessage, m.depth = 256, 0
		return m
	}, properties())
}

func TestOverOrderedLossyLinks(t *testing.T) {
	conform(t, func(t testing.TB) *medium {
		m := newMedium(native.LinkInfo{Protocol: "mem", Peer: "peer", Ordered: true, MaxMessage: 4 << 10})
		m.pace = 50 * time.Microsecond
		seed := uint64(0)
		m.wrap = func(l native.Link) native.Link {
			seed++
			return transporttest.Faults{Seed: seed, Loss: 0.02, Corrupt: 0.01}.Wrap(t, l)
		}
		return m
	}, properties())
}

func TestOverDatagrams(t *testing.T) {
	conform(t, func(t testing.TB) *medium {
		m := newMedium(native.LinkInfo{Protocol: "mem", Peer: "peer", MaxMessage: 1200})
		m.pace = 50 * time.Microsecond
		seed := uint64(0)
		m.wrap = func(l native.Link) native.Link {
			seed++
			return transporttest.Faults{Seed: seed, Loss: 0.02, Duplicate: 0.01, Reorder: 0.02, Corrupt: 0.01}.Wrap(t, l)
		}
		return m
	}, properties())
}

// A medium with one peer, such as a serial line, passes too.
func TestOverOneAtATime(t *testing.T) {
	transporttest.TestTransport(t, func(t testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
		lines := make(chan native.Link, 8)
		plug := func(ctx context.Context) (native.Link, error) {
			select {
			case l := <-lines:
				return l, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		call := func(context.Context) (native.Link, error) {
			near, far := memLinks(reliable, 64)
			lines <- far
			return near, nil
		}
		return native.Over(nil, native.OneAtATime(plug), native.Config{}), func(net.Addr) transport.Transport { return native.Over(call, nil, native.Config{}) }
	}, properties())
}
