// Package session drives the engine of internal/arq: it is what stands between a
// [transport.Conn] and the media.
//
//	Conn         one peer; lives on when its link dies; redials
//	 └ Session   one engine under one mutex; lives as long as its link
//	    └ Carrier   moves messages: a link with two goroutines (Carry), or a place
//	                on a shared socket (udpx)
//
// # Goroutines and what each may do
//
//   - A carrier's reader gives what arrives to Session.Deliver, which steps the
//     engine and hands bytes over to queues. It never waits for anything but the
//     medium and the session's mutex, so that two peers which both send bulk
//     always read.
//   - A carrier's writer takes messages from Session.Poll only when the medium can
//     take them. It may block in the medium; nobody waits for it. That of a link ends
//     when there is nothing to write.
//   - Each transfer has one worker while it lasts, on a goroutine of the Endpoint's
//     crew: the sender's reads and hashes the body, the receiver's calls the Inbox and
//     in the end writes the answer if no writer runs.
//     Workers take the session's mutex only to exchange buffers with the engine. The
//     goroutine that called Send reports progress and ends with its context, also
//     while the worker's body blocks. A body that cannot, small and in memory, has it
//     for its worker.
//   - A Conn whose link was lost has one goroutine that redials while a call needs it.
//
// # Who owns what
//
// A Session's mutex guards its engine, its tables of transfers and their fields that
// events change. It is never held during I/O, hashing, or a call of the user's
// code. A Conn's mutex guards which Session is the present one. Neither is taken
// while the other is held.
//
// Bytes that arrive stay in the reader's [Buffer] or are copied behind each other
// into one; the worker releases it after WriteAt, and the credit goes back then. The
// credit of all sessions of an Endpoint comes from one pool.
// Bytes on their way out are the engine's from Supply to its Released event, and the
// writer's while it writes them from where they are.
//
// # Who ends whom
//
// A session ends once: by the engine's Closed event, or by the carrier's Fail. It then
// tells its transfers, whose workers stop at their next step, then the Conn, and
// wakes the carrier, which sends what is left (a CLOSE), frees the medium and stops
// its goroutines. Conn.Close waits for that; it does not wait for user code that
// ignores its context (a blocked Body.Read, a Handler).
package session
