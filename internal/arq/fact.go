package arq

// fact is one piece of control information that the peer must learn: a frame that is
// sent until a message with it is acknowledged. It is unsent, sent in message number, or
// received (after golang.org/x/net/quic sentVal).
type fact int64

const (
	unsent   fact = -1 - iota // to be sent in the next message
	received                  // the peer has acknowledged it
)

// due reports whether the fact is to be sent.
func (f fact) due() bool { return f == unsent }

// open reports whether the peer may not know the fact.
func (f fact) open() bool { return f != received }

// sent notes the message that carries the fact.
func (f *fact) sent(number int64) { *f = fact(number) }

// acked notes that a message with the fact has arrived, whichever it was.
func (f *fact) acked() { *f = received }

// lost notes that a message was lost; it reports whether the fact is now to be sent
// again, which is not so if a newer message carries it.
func (f *fact) lost(number int64) bool {
	if *f != fact(number) {
		return false
	}
	*f = unsent
	return true
}
