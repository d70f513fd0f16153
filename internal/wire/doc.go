// Package wire is the codec of the native protocol, version 1, as SPEC.md at the
// top of the project has it: message headers, the checksum, and the frames.
//
// A message is built with [Header.Append], the Append methods of frames, DATA
// last, and [Seal]. It is read with [Parse], a [Reader] over its frames and the
// Parse method of each frame. Ordered reliable links have [SealReliable] and
// [ParseReliable]. All integers are little endian.
//
// Nothing here keeps state, does I/O or panics on input. What a Parse method
// fills in aliases the message; DATA and ACK are written and read without
// allocation. Every decoding error is an [*Error]. Append methods do not
// check: what they are given must be within the limits that Parse enforces.
package wire
