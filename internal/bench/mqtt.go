package main

import (
	"context"
	"fmt"

	"github.com/pixferry/pixferry/mqttx"
	"github.com/pixferry/pixferry/transport"
)

const (
	mqttImage = 2_000_000
	// creditWindow is how many messages a loop with paho has on their way.
	creditWindow = 64
	basePackage  = 1400
)

func mqttSuite(ctx context.Context, o *options, r *report) error {
	brokers, err := startBrokers()
	if err != nil {
		return err
	}
	defer stopBrokers(brokers)
	for i := range brokers {
		if err := measureAll(ctx, o, r, mqttCases(o, &brokers[i])); err != nil {
			return err
		}
	}
	return nil
}

func mqttCases(o *options, b *broker) (cases []benchCase) {
	images := 100
	if o.quick {
		images = 20
	}
	for _, w := range []work{{mqttImage, images, 1}, {mqttImage, images, 8}, {o.large(), 1, 1}} {
		name := fmt.Sprintf("2 MB images, %s", atOnce(w.at))
		if w.images == 1 {
			name = sizeName(w.size)
		}
		c := benchCase{"mqtt", b.name + ": " + name, w, []system{
			{"pixferry", ours, 0, func(ctx context.Context) (runner, error) { return openMQTT(ctx, b.url, 0) }},
			b.paho("paho, 960 KiB messages", 960<<10, creditWindow, 0.9),
		}}
		if w.images > 1 {
			c.systems = append(c.systems, b.paho("paho, an image a message", 0, w.at, 0.8))
		}
		for _, size := range []int{64, 120, 240} {
			c.systems = append(c.systems, system{fmt.Sprintf("pixferry, MaxMessage %d KiB", size), setting, 0.85,
				func(ctx context.Context) (runner, error) { return openMQTT(ctx, b.url, size<<10) }})
		}
		cases = append(cases, c)
	}
	for _, size := range []int{16, 120} {
		cases = append(cases, benchCase{"mqtt", fmt.Sprintf("%s: %s, %d KiB messages", b.name, sizeName(o.large()), size), work{o.large(), 1, 1}, []system{
			{"pixferry", ours, 0, func(ctx context.Context) (runner, error) { return openMQTT(ctx, b.url, size<<10) }},
			b.paho("paho, credit window", int64(size)<<10, creditWindow, 0.9),
		}})
	}
	return append(cases, benchCase{"mqtt", b.name + ": P0, stop and wait", work{mqttImage, 1, 1}, []system{
		{"pixferry", ours, 0, func(ctx context.Context) (runner, error) { return openBase(ctx, b.url) }},
		b.paho("paho, stop and wait", basePackage, 1, 0.9),
	}})
}

func (b *broker) paho(name string, message int64, window int, want float64) system {
	return system{name, limit, want, func(ctx context.Context) (runner, error) { return openPaho(ctx, b.url, message, window) }}
}

// openMQTT joins a receiver. With largest 0 pixferry finds out how large messages may be.
func openMQTT(ctx context.Context, url string, largest int) (runner, error) {
	name := fmt.Sprintf("bench-%d", pahos.Add(1))
	return openFerry(ctx, nowhere{}, &mqttx.Transport{Broker: url, Name: name, MaxMessage: largest},
		func(string) transport.Transport {
			return &mqttx.Transport{Broker: url, Peer: name, MaxMessage: largest}
		})
}

// openBase is the base protocol, in which a receipt says no more than that BASE has answered.
func openBase(ctx context.Context, url string) (runner, error) {
	n := pahos.Add(1)
	base := func() *mqttx.Base {
		return &mqttx.Base{Broker: url, ToBase: fmt.Sprintf("bench/%d/pub", n), FromBase: fmt.Sprintf("bench/%d/sub", n)}
	}
	f, err := openFerry(ctx, nowhere{}, base(), func(string) transport.Transport { return base() })
	if err == nil {
		f.level = transport.Received
	}
	return f, err
}
