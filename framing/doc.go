// Package framing turns bytes into frames and frames into bytes. It is the
// bottom layer of pixferry: pure functions and small structs, no goroutines, no
// clock, and no allocation once buffers have reached their size.
//
// Four tools, which know nothing of each other's users:
//
//   - A header is written with append calls ([AppendUint], [AppendPrefixed] and
//     those of encoding/binary) and read with a [Cursor], whose first failure
//     sticks, so that a parser checks once, at its end. A user's own header is
//     an Append and a Parse method of about twenty lines: see the example of
//     Cursor.
//   - A [Prefix] says how a length is written before a frame: 1 to 8 bytes in
//     either order, or a varint. [Prefix.ReadFrame] takes such frames from an
//     io.Reader and a [Writer] writes them, both with a cap that is checked
//     before any memory is taken.
//   - [AppendCRC32C] and [TrimCRC32C] add and check a checksum trailer.
//   - A [Scanner] finds frames that start with a magic in a stream that may
//     hold garbage, such as a serial line, and never loses a good frame that
//     begins inside a bad one.
//
// Which one: a datagram or an MQTT message is a frame already and needs only a
// header; a reliable stream needs a Prefix; a stream that may lose or change
// bytes needs a Scanner.
//
// Slices that are returned by a Cursor or a Scanner alias the bytes they were
// found in. A nonsensical width in a program (0 or 9 for an integer) panics;
// no input does.
package framing
