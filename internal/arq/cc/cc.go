// Package cc holds the congestion controllers of the engine: state machines that are
// told of every message sent, acknowledged and lost, and answer with a window and a
// pacing rate. They take the time as an argument and have one owner.
package cc

import "time"

// Controller decides how much may be in flight and how fast it leaves.
type Controller interface {
	// Begin forgets everything: full messages have so many bytes, and known is what is known of the path.
	Begin(message int, known Path)
	// Sent notes the number of a message of data or control.
	Sent(number int64)
	// Lost notes that a message is believed lost. A batch's losses come before its Acked.
	Lost(now time.Duration, number int64)
	// Acked is called once per batch of acknowledgements with what they say together.
	Acked(s Sample)
	// Undo notes that a message counted as lost has arrived after all.
	Undo(number int64)
	// Resize notes a new size of full messages in bytes.
	Resize(max int)
	// Window returns how many bytes may be in flight.
	Window() int64
	// Rate returns the pacing rate in bytes a second; 0: none known, do not pace.
	Rate() int64
	// Burst returns how many bytes the pacer may send at once, 0: its own default.
	Burst() int64
	// Path returns what is known of the path by now, to be remembered; zero: nothing.
	Path() Path
}

// Path is what is known of a path: a bandwidth in bytes a second and the smallest round trip.
type Path struct {
	Rate int64
	RTT  time.Duration
}

// Sample is what one batch of acknowledgements says. Times are since the engine's start.
type Sample struct {
	Now      time.Duration
	Acked    int64 // bytes newly acknowledged
	Packets  int64 // messages newly acknowledged
	InFlight int64 // bytes in flight after the batch
	Prior    int64 // bytes in flight before it

	Largest       int64         // number of the newest message acknowledged
	LargestSentAt time.Duration // when that was sent
	Next          int64         // number of the next message to be sent
	RTT           time.Duration // latest sample; 0: none in this batch
	MinRTT, SRTT  time.Duration

	// Rate is the delivery rate in bytes a second over the flight of the newest
	// message acknowledged (draft-cheng-iccrg-delivery-rate-estimation); 0: none.
	Rate int64
	// AppLimited: the sender had too little to send, so Rate is a lower bound.
	AppLimited bool
	// Delivered is the number of bytes acknowledged so far; DeliveredAtSend what it
	// was when the newest message acknowledged was sent. A round has passed when
	// that reaches the Delivered of the round's start.
	Delivered, DeliveredAtSend int64
}
