// Package framing turns bytes into frames and frames into bytes. It has pure functions and small
// structs, no goroutines and no clock, and it allocates nothing once buffers have reached their
// size.
//
// Which tool: a datagram or an MQTT message is a frame already and needs only a header. A
// reliable stream needs a [Prefix]. A stream that may lose or change bytes needs a [Scanner].
//
//   - A header is written with append calls ([AppendUint], [AppendPrefixed] and those of encoding/binary)
//     and read with a [Cursor], which keeps its first failure, so that a parser checks once, at its end.
//     A header of your own is an Append and a Parse method of about ten lines each: see the example of Cursor.
//   - A [Prefix] says how a length is written before a frame: as 1 to 8 bytes in either order, or as a
//     varint. [Prefix.ReadFrame] reads such frames and a [Writer] writes them. Both check a limit before
//     they take memory.
//   - [AppendCRC32C] and [TrimCRC32C] add and check a checksum trailer.
//   - A [Scanner] finds frames that start with a magic in a stream that may hold garbage, such as a
//     serial line. It never loses a good frame that begins inside a bad one.
//
// Slices returned by a Cursor or a Scanner alias the bytes in which they were found. An
// impossible width in a program (0 or 9 for an integer) panics; no input does.
package framing
