// Package arq is the engine of the native protocol: one [Engine] is one session's
// state on one link. It takes (now, message) and gives messages to send, the next
// deadline and events. It does no I/O, starts no goroutine, reads no clock and keeps
// no lock: its owner calls it under one mutex, or from one goroutine, with a time
// that never goes back.
//
// # The loop around it
//
//	batch read from the link:  Receive for each message with the same now, then
//	                           NextEvent until there is none, then Poll
//	link can take a burst:     Poll until it returns 0 or the burst is full
//	timer at Deadline:         Advance, NextEvent, Poll
//	a call of the owner's      (Offer, Supply, Accept, Consumed, ...): Poll
//	after all of these:        set the timer to Deadline
//
// Receive only notes what a message says. Loss detection, the congestion
// controller's step and the decision to acknowledge happen once for the whole batch
// at the next Poll, Advance or Deadline, so a batch costs one of each.
//
// Poll builds a message only when it is called. Call it only when the link can take
// one: what is not polled stays in the engine, where a cancel or a more urgent
// transfer still overtakes it. Never wait for the writer before reading on.
//
// # Who owns which bytes
//
// Supply gives a slice to the engine, which reads it until a Released event gives it
// back. The Data of an event aliases the message passed to Receive: drain the events,
// and copy or take over the bytes, before the message's memory is used again.
package arq
