package main

import (
	"context"
	"fmt"
	"sync/atomic"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// rawPaho is what one would write by hand with paho: images in messages of one size at QoS 0,
// so many on their way at once, each answered by the receiver with 8 bytes, so that no queue of
// the broker overflows. There are no headers and no digests, and a lost message ends it.
type rawPaho struct {
	message int64 // bytes; 0: a whole image
	window  int   // messages on their way at most
	topic   string
	clients [2]mqtt.Client // receiver, sender
	credit  chan struct{}
	arrived chan struct{}
	done    chan struct{}
}

// pahos numbers the topics of those who use a broker.
var pahos atomic.Int64

func openPaho(ctx context.Context, url string, message int64, window int) (runner, error) {
	p := &rawPaho{
		message: message, window: window, topic: fmt.Sprintf("bench/%d/", pahos.Add(1)),
		credit: make(chan struct{}, window), arrived: make(chan struct{}, window), done: make(chan struct{}),
	}
	for range window {
		p.credit <- struct{}{}
	}
	go p.answer()
	for i, filter := range []string{"to", "from"} {
		// Neither channel can be full, so no handler blocks.
		took := []chan struct{}{p.arrived, p.credit}[i]
		p.clients[i] = mqtt.NewClient(mqtt.NewClientOptions().AddBroker(url).SetAutoReconnect(false))
		err := await(ctx, p.clients[i].Connect())
		if err == nil {
			err = await(ctx, p.clients[i].Subscribe(p.topic+filter, 0, func(mqtt.Client, mqtt.Message) { took <- struct{}{} }))
		}
		if err != nil {
			p.close()
			return nil, err
		}
	}
	return p, nil
}

func await(ctx context.Context, t mqtt.Token) error {
	select {
	case <-t.Done():
		return t.Error()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *rawPaho) answer() {
	defer close(p.done)
	for range p.arrived {
		p.clients[0].Publish(p.topic+"from", 0, false, make([]byte, 8))
	}
}

func (p *rawPaho) do(ctx context.Context, w work) error {
	size := p.message
	if size == 0 {
		size = w.size
	}
	for range w.images {
		for rest := image(w.size); len(rest) > 0; {
			if err := p.take(ctx, 1); err != nil {
				return err
			}
			n := min(int64(len(rest)), size)
			p.clients[1].Publish(p.topic+"to", 0, false, rest[:n])
			rest = rest[n:]
		}
		if w.at == 1 {
			if err := p.drain(ctx); err != nil {
				return err
			}
		}
	}
	return p.drain(ctx)
}

func (p *rawPaho) take(ctx context.Context, n int) error {
	for range n {
		select {
		case <-p.credit:
		case <-ctx.Done():
			return fmt.Errorf("a message or its answer is lost: %w", ctx.Err())
		}
	}
	return nil
}

// drain waits until all is answered.
func (p *rawPaho) drain(ctx context.Context) error {
	if err := p.take(ctx, p.window); err != nil {
		return err
	}
	for range p.window {
		p.credit <- struct{}{}
	}
	return nil
}

func (p *rawPaho) close() {
	for _, c := range p.clients {
		if c != nil {
			c.Disconnect(0)
		}
	}
	close(p.arrived)
	<-p.done
}
