package main

import (
	"context"
	"os"

	"github.com/pixferry/pixferry/internal/udpsock"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

func udpSuite(ctx context.Context, o *options, r *report) error {
	large := o.large()
	quicSystem := func(want float64) system {
		return system{"quic-go", peer, want, openQUIC}
	}
	cases := []benchCase{
		{"udp", sizeName(large), work{large, 1, 1}, []system{
			{"pixferry", ours, 0, openUDP},
			{"GSO + GRO, CRC32C", limit, 0.5, func(ctx context.Context) (runner, error) { return openRawUDP(ctx, true) }},
			quicSystem(4),
			{"kcp-go", peer, 0, openKCP},
		}},
		{"udp", sizeName(large) + ", offload off", work{large, 1, 1}, []system{
			{"pixferry", ours, 0, withoutOffload(openUDP)},
			{"sendmmsg, recvmmsg", limit, 0.85, func(ctx context.Context) (runner, error) { return openRawUDP(ctx, false) }},
			{"quic-go", peer, 0, withoutOffload(openQUIC)},
		}},
	}
	for _, at := range []int{8, 1} {
		cases = append(cases, benchCase{"udp", "1,000 x 100 KB, " + atOnce(at), work{100_000, 1000, at}, []system{
			{"pixferry", ours, 0, openUDP},
			quicSystem(3),
		}})
	}
	if err := measureAll(ctx, o, r, cases); err != nil {
		return err
	}
	return udpMemoryRows(ctx, o, r)
}

// openUDP has the datagrams of quic-go.
func openUDP(ctx context.Context) (runner, error) {
	return openFerry(ctx, nowhere{}, &udpx.Transport{Addr: "127.0.0.1:0", MaxDatagram: 1452},
		func(addr string) transport.Transport { return &udpx.Transport{Addr: addr, MaxDatagram: 1452} })
}

// withoutOffload opens a system whose sockets use neither GSO nor GRO.
func withoutOffload(open func(context.Context) (runner, error)) func(context.Context) (runner, error) {
	return func(ctx context.Context) (runner, error) {
		for name, value := range map[string]string{udpsock.OffloadVariable: "off", "QUIC_GO_DISABLE_GSO": "true"} {
			os.Setenv(name, value)
			defer os.Unsetenv(name)
		}
		return open(ctx)
	}
}
