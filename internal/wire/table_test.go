package wire_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/wire"
)

// The tables that vectors, truncation tests and fuzz seeds are made of.

var (
	id     = [16]byte{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0, 0, 0, 0, 0, 0, 0, 42}
	token  = [16]byte{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}
	digest = sha256.New().Sum(nil)

	short = wire.Header{Dest: 0x8877665544332211, Number: 0x01020304}
	long  = wire.Header{Long: true, Dest: 0x8877665544332211, Number: 1, Version: 1, Source: 0xfeeddccbbaa99887}
	none  = wire.Header{Long: true, Dest: 0x8877665544332211, Number: 7, Source: 0xfeeddccbbaa99887}

	hello = &wire.Hello{MaxMessage: 262144, Window: 4 << 20, Messages: 512, AckRanges: 256, Transfers: 64, Metadata: 16384,
		MessageBytes: 65536, Reorder: 8 << 20, IdleMillis: 30000, Instance: 0x0123456789abcdef, ResetToken: token}
)

// message is a valid message. Of one that is not canonical, as it has what
// version 1 never sends, no encoder gives the bytes.
type message struct {
	name         string
	header       wire.Header
	frames       []frame
	notCanonical bool
}

func messages() []message {
	meta := metadata()[0].meta.Append(nil)
	size := uint16(len(meta))
	ranges := func(bounds ...int64) (r []chunk.Range) {
		for i := 0; i < len(bounds); i += 2 {
			r = append(r, chunk.Range{Start: bounds[i], End: bounds[i+1]})
		}
		return r
	}
	repairs := *hello
	repairs.Repairs = 65535
	padded := hello.Len() + wire.LongHeader + wire.Trailer
	return []message{
		{name: "no frames", header: short},
		{name: "data", header: short, frames: []frame{&wire.Data{Handle: 0x1234, Offset: 0x0a0b0c0d0e0f, Payload: []byte("pixels")}}},
		{name: "data without payload", header: short, frames: []frame{&wire.Data{Handle: 0xffff}}},
		{name: "data at the largest offset", header: short, frames: []frame{&wire.Data{Offset: wire.MaxSize - 1, Payload: []byte{0xff}}}},
		{name: "ack of one message", header: short, frames: []frame{newAck(wire.Ack{Window: 1 << 20, Messages: 100}, ranges(0, 1)...)}},
		{name: "ack with gaps", header: short, frames: []frame{newAck(wire.Ack{Delay: 125, Window: 65536, Messages: wire.NoMessageLimit},
			ranges(3, 4, 100, 400, 401, 403, 20000, 20001)...)}},
		{name: "ack without credit, largest wraps", header: short, frames: []frame{newAck(wire.Ack{Delay: math.MaxUint16},
			ranges(1<<32-2, 1<<32-1)...)}},
		{name: "ack before data", header: short, frames: []frame{newAck(wire.Ack{Window: 9000}, ranges(5, 9)...),
			&wire.Data{Handle: 1, Offset: 1 << 20, Payload: []byte{0}}}},
		{name: "hello", header: long, frames: []frame{hello}},
		{name: "hello padded to 1200", header: long, frames: []frame{hello, &other{kind: wire.TypePadding, Body: make([]byte, 1200-padded-wire.FrameHeader)}}},
		{name: "hello of a small device", header: long, frames: []frame{&wire.Hello{MaxMessage: 256, Window: 512, Messages: 2, AckRanges: 1, Transfers: 1, Metadata: 128}}},
		{name: "hello with a field of a later version", header: long, notCanonical: true,
			frames: []frame{&other{kind: wire.TypeHello, Body: append(hello.Append(nil)[wire.FrameHeader:], 0xff, 2, 0, 'h', 'i')}}},
		{name: "offer", header: short, frames: []frame{&wire.Offer{Handle: 2, Attempt: 3, ID: id, Oldest: 40, Flags: wire.OfferInteractive | wire.OfferResume,
			Algorithm: 2, Size: 123456789, MetaSize: size, Meta: meta}}},
		{name: "offer of unknown size without metadata", header: short, frames: []frame{&wire.Offer{Handle: 2, ID: id, Algorithm: 1, Size: wire.UnknownSize}}},
		{name: "offer of a message", header: short, frames: []frame{&wire.Offer{Handle: 3, Attempt: 1, ID: id, Oldest: 42, Kind: wire.KindMessage,
			Algorithm: 1, Size: 5, MetaSize: 7, Meta: []byte{6, 4, 0, 't', 'e', 'x', 't'}}}},
		{name: "offer with the second part of the metadata", header: short, frames: []frame{&wire.Offer{Handle: 2, ID: id, Algorithm: 2, Size: wire.MaxSize,
			MetaSize: size, MetaOffset: 30, Meta: meta[30:]}}},
		{name: "offer, data and fin at once", header: long, frames: []frame{hello,
			&wire.Offer{Handle: 1, Attempt: 1, ID: id, Oldest: 42, Algorithm: 2, Size: 3},
			&wire.Fin{Handle: 1, Attempt: 1, Size: 3, Algorithm: 2, Digest: digest},
			&wire.Data{Handle: 1, Payload: []byte("abc")}}},
		{name: "accept of nothing held", header: short, frames: []frame{&wire.Accept{Handle: 2, Attempt: 3}}},
		{name: "accept of a run", header: short, frames: []frame{&wire.Accept{Handle: 2, Attempt: 3, Held: 9, First: 4, DigestLength: 16, Digests: bytes.Repeat(token[:], 3)}}},
		{name: "resume", header: short, frames: []frame{&wire.Resume{Handle: 2, Attempt: 3, First: 4, Count: 11, Agree: []byte{0xfb, 0x05}}}},
		{name: "resume of eight", header: short, frames: []frame{&wire.Resume{Handle: 2, Attempt: 3, First: 1 << 27, Count: 8, Agree: []byte{0x80}}}},
		{name: "fin", header: short, frames: []frame{&wire.Fin{Handle: 2, Attempt: 3, Size: wire.MaxSize, Algorithm: 2, Digest: digest}}},
		{name: "receipt", header: short, frames: []frame{&wire.Receipt{Handle: 2, Attempt: 3, ID: id, Level: wire.LevelKept, Bytes: 123456789, Algorithm: 2, Digest: digest}}},
		{name: "receipt of a duplicate", header: short, frames: []frame{&wire.Receipt{Handle: 2, Attempt: 4, ID: id, Level: wire.LevelReceived,
			Flags: wire.ReceiptDuplicate, Algorithm: 1, Digest: token[:]}}},
		{name: "reject", header: short, frames: []frame{&wire.Reject{Handle: 2, Attempt: 3, ID: id, Reason: 5, Flags: wire.RejectRetryable, AfterMillis: 1500,
			Text: "zu viele Übertragungen: später wieder"}}},
		{name: "cancel", header: short, frames: []frame{&wire.Cancel{Handle: 2, Attempt: 3, Reason: 13}}},
		{name: "ping with a body", header: short, frames: []frame{&other{kind: wire.TypePing, Body: []byte{1, 2}}}},
		{name: "ping", header: short, frames: []frame{&other{kind: wire.TypePing}}},
		{name: "close", header: short, frames: []frame{&wire.Close{Code: wire.CodeGoingAway, Text: "restarting"}}},
		{name: "close without text", header: short, frames: []frame{&wire.Close{}}},
		{name: "reset", header: wire.Header{Long: true, Number: 7}, frames: []frame{&wire.Reset{Dest: short.Dest, Number: 7, Token: token}}},
		{name: "versions", header: none, frames: []frame{&wire.Versions{Spoken: []byte{1, 2}}}},
		{name: "path challenge", header: short, frames: []frame{&wire.Path{Data: 0x1122334455667788}}},
		{name: "hello of a peer that repairs", header: long, frames: []frame{&repairs}},
		{name: "parity", header: short, frames: []frame{&wire.Parity{Handle: 2, Size: 10_000, Count: 3, Index: 2, Symbol: bytes.Repeat(token[:], 60)}}},
		{name: "parity, as many symbols as can be", header: short, frames: []frame{&wire.Parity{Handle: 2, Size: 1, Count: 255, Symbol: []byte{9}}}},
		{name: "path response", header: short, frames: []frame{&wire.Path{Response: true, Data: 0x1122334455667788}}},
		{name: "a frame of a later version is skipped", header: short, notCanonical: true,
			frames: []frame{&other{kind: 0x80, Body: []byte("later")}, &other{kind: wire.TypePing}}},
	}
}

// bad is a message that must not be obeyed.
type bad struct {
	name  string
	msg   []byte
	code  wire.Code
	frame wire.Type
}

func malformed() []bad {
	body := func(f frame) []byte { return f.Append(nil)[wire.FrameHeader:] }
	one := func(t wire.Type, body []byte) []byte { return build(short, &other{kind: t, Body: body}) }
	edit := func(f frame, at int, v ...byte) []byte {
		b := body(f)
		copy(b[at:], v)
		return b
	}
	raw := func(b ...byte) []byte { return wire.Seal(append(short.Append(nil), b...)) }
	flag := func(h wire.Header, f byte) []byte {
		b := h.Append(nil)
		b[0] |= f
		return wire.Seal(b)
	}
	changed := build(short, &wire.Data{Payload: []byte("pixels")})
	changed[20] ^= 1
	future := long
	future.Version = 2
	offer := &wire.Offer{ID: id, Size: 1, MetaSize: 3, Meta: []byte{1, 0, 0}}
	fin := &wire.Fin{Algorithm: 1, Digest: token[:]}
	receipt := &wire.Receipt{ID: id, Level: wire.LevelKept, Algorithm: 1, Digest: token[:]}
	accept := &wire.Accept{Held: 3, First: 1, DigestLength: 16, Digests: token[:]}
	resume := &wire.Resume{Count: 3, Agree: []byte{7}}
	return []bad{
		{"empty", nil, wire.CodeTruncated, wire.NoFrame},
		{"shorter than a header and a checksum", make([]byte, 16), wire.CodeTruncated, wire.NoFrame},
		{"long header cut", flag(wire.Header{}, 0x80), wire.CodeTruncated, wire.NoFrame},
		{"changed on the way", changed, wire.CodeChecksum, wire.NoFrame},
		{"version 2", build(future), wire.CodeVersion, wire.NoFrame},
		{"flag protection", flag(short, 0x02), wire.CodeMalformed, wire.NoFrame},
		{"flag zero", flag(short, 0x01), wire.CodeMalformed, wire.NoFrame},
		{"flag key phase", flag(short, 0x10), wire.CodeMalformed, wire.NoFrame},
		{"flag epoch", flag(long, 0x20), wire.CodeMalformed, wire.NoFrame},
		{"unknown frame below 0x80", one(0x7f, nil), wire.CodeUnknown, 0x7f},
		{"reserved frame HANDSHAKE", one(0x0f, []byte{0, 0}), wire.CodeUnknown, 0x0f},
		{"reserved frame RETRY", one(0x10, make([]byte, 64)), wire.CodeUnknown, 0x10},
		{"frame without a whole length", raw(0x0b, 0), wire.CodeTruncated, wire.TypePing},
		{"frame longer than the message", raw(0x0c, 4, 0, 0, 'a', 'b'), wire.CodeTruncated, wire.TypeClose},
		{"second frame longer than the message", raw(0x0b, 0, 0, 0x80, 0xff, 0xff), wire.CodeTruncated, 0x80},
		{"data cut", raw(0x01, 1, 0, 0, 0, 0, 0, 0), wire.CodeTruncated, wire.TypeData},
		{"data beyond the largest size", raw(0x01, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 'x'), wire.CodeMalformed, wire.TypeData},
		{"ack cut", one(wire.TypeAck, make([]byte, 13)), wire.CodeTruncated, wire.TypeAck},
		{"ack of an empty range", one(wire.TypeAck, make([]byte, 14)), wire.CodeMalformed, wire.TypeAck},
		{"ack with an empty gap", one(wire.TypeAck, []byte{9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1}), wire.CodeMalformed, wire.TypeAck},
		{"ack with fewer ranges than it says", one(wire.TypeAck, []byte{9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 1, 1, 1}), wire.CodeTruncated, wire.TypeAck},
		{"ack with bytes behind it", one(wire.TypeAck, []byte{9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1}), wire.CodeMalformed, wire.TypeAck},
		{"ack over 2^31 numbers", one(wire.TypeAck, []byte{9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x81, 0x80, 0x80, 0x80, 0x08}), wire.CodeMalformed, wire.TypeAck},
		{"ack over 2^31 numbers in all", one(wire.TypeAck, []byte{9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x07}), wire.CodeMalformed, wire.TypeAck},
		{"hello cut", one(wire.TypeHello, body(hello)[:50]), wire.CodeTruncated, wire.TypeHello},
		{"hello with too small a message", one(wire.TypeHello, edit(hello, 0, 255, 0, 0, 0)), wire.CodeMalformed, wire.TypeHello},
		{"hello without ack ranges", one(wire.TypeHello, edit(hello, 10, 0, 0)), wire.CodeMalformed, wire.TypeHello},
		{"hello with an unknown field below 0x80", one(wire.TypeHello, append(body(hello), 1, 0, 0)), wire.CodeUnknown, wire.TypeHello},
		{"hello with a cut field", one(wire.TypeHello, append(body(hello), 0x80, 2, 0, 0)), wire.CodeTruncated, wire.TypeHello},
		{"offer cut", one(wire.TypeOffer, body(offer)[:44]), wire.CodeTruncated, wire.TypeOffer},
		{"offer with ID zero", one(wire.TypeOffer, body(&wire.Offer{Size: 1})), wire.CodeMalformed, wire.TypeOffer},
		{"offer over the largest size", one(wire.TypeOffer, edit(offer, 33, 0, 0, 0, 0, 0, 0, 1, 0)), wire.CodeMalformed, wire.TypeOffer},
		{"offer of a negative size", one(wire.TypeOffer, edit(offer, 33, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)), wire.CodeMalformed, wire.TypeOffer},
		{"offer with more metadata than it says", one(wire.TypeOffer, append(body(offer), 0)), wire.CodeMalformed, wire.TypeOffer},
		{"offer with metadata behind its end", one(wire.TypeOffer, edit(offer, 43, 1)), wire.CodeMalformed, wire.TypeOffer},
		{"accept cut", one(wire.TypeAccept, body(accept)[:14]), wire.CodeTruncated, wire.TypeAccept},
		{"accept with a cut digest", one(wire.TypeAccept, body(accept)[:30]), wire.CodeMalformed, wire.TypeAccept},
		{"accept with a whole and a cut digest", one(wire.TypeAccept, append(body(accept), 0)), wire.CodeMalformed, wire.TypeAccept},
		{"accept with too long digests", one(wire.TypeAccept, append(edit(accept, 14, 33), make([]byte, 17)...)), wire.CodeMalformed, wire.TypeAccept},
		{"accept with digests of no length", one(wire.TypeAccept, edit(accept, 14, 0)), wire.CodeMalformed, wire.TypeAccept},
		{"accept of one block when none is held", one(wire.TypeAccept, edit(accept, 6, 0, 0, 0, 0)), wire.CodeMalformed, wire.TypeAccept},
		{"accept of two blocks when one is held", one(wire.TypeAccept, append(edit(accept, 6, 1), token[:]...)), wire.CodeMalformed, wire.TypeAccept},
		{"accept without the held blocks", one(wire.TypeAccept, edit(&wire.Accept{}, 6, 1)), wire.CodeMalformed, wire.TypeAccept},
		{"accept beyond the largest size", one(wire.TypeAccept, edit(accept, 10, 0, 0, 0, 0x10)), wire.CodeMalformed, wire.TypeAccept},
		{"resume cut", one(wire.TypeResume, body(resume)[:12]), wire.CodeTruncated, wire.TypeResume},
		{"resume of no block", one(wire.TypeResume, make([]byte, 12)), wire.CodeMalformed, wire.TypeResume},
		{"resume with bits over its count", one(wire.TypeResume, edit(resume, 12, 8)), wire.CodeMalformed, wire.TypeResume},
		{"resume with bytes behind it", one(wire.TypeResume, append(body(resume), 0)), wire.CodeMalformed, wire.TypeResume},
		{"fin cut", one(wire.TypeFin, body(fin)[:14]), wire.CodeTruncated, wire.TypeFin},
		{"fin without a digest", one(wire.TypeFin, body(fin)[:15]), wire.CodeMalformed, wire.TypeFin},
		{"fin with too long a digest", one(wire.TypeFin, append(body(fin), make([]byte, 17)...)), wire.CodeMalformed, wire.TypeFin},
		{"fin over the largest size", one(wire.TypeFin, edit(fin, 12, 1)), wire.CodeMalformed, wire.TypeFin},
		{"receipt cut", one(wire.TypeReceipt, body(receipt)[:32]), wire.CodeTruncated, wire.TypeReceipt},
		{"receipt of level sent", one(wire.TypeReceipt, edit(receipt, 22, 1)), wire.CodeMalformed, wire.TypeReceipt},
		{"receipt without a digest", one(wire.TypeReceipt, body(receipt)[:33]), wire.CodeMalformed, wire.TypeReceipt},
		{"reject cut", one(wire.TypeReject, make([]byte, 27)), wire.CodeTruncated, wire.TypeReject},
		{"reject with too long a text", one(wire.TypeReject, make([]byte, 28+wire.MaxText+1)), wire.CodeMalformed, wire.TypeReject},
		{"cancel cut", one(wire.TypeCancel, make([]byte, 6)), wire.CodeTruncated, wire.TypeCancel},
		{"cancel with bytes behind it", one(wire.TypeCancel, make([]byte, 8)), wire.CodeMalformed, wire.TypeCancel},
		{"close without a code", one(wire.TypeClose, nil), wire.CodeTruncated, wire.TypeClose},
		{"close with too long a text", one(wire.TypeClose, make([]byte, 1+wire.MaxText+1)), wire.CodeMalformed, wire.TypeClose},
		{"reset cut", one(wire.TypeReset, make([]byte, 27)), wire.CodeTruncated, wire.TypeReset},
		{"versions without one", one(wire.TypeVersions, nil), wire.CodeTruncated, wire.TypeVersions},
		{"hello with a wrong length of repairs", one(wire.TypeHello, append(body(hello), 0x80, 2, 0, 0, 0)), wire.CodeMalformed, wire.TypeHello},
		{"parity cut", one(wire.TypeParity, make([]byte, 7)), wire.CodeTruncated, wire.TypeParity},
		{"parity without a symbol", one(wire.TypeParity, []byte{1, 0, 9, 0, 0, 0, 1, 0}), wire.CodeMalformed, wire.TypeParity},
		{"parity of nothing", one(wire.TypeParity, []byte{1, 0, 0, 0, 0, 0, 1, 0, 7}), wire.CodeMalformed, wire.TypeParity},
		{"parity with an index over its count", one(wire.TypeParity, []byte{1, 0, 9, 0, 0, 0, 1, 1, 7}), wire.CodeMalformed, wire.TypeParity},
		{"parity with too many symbols", one(wire.TypeParity, []byte{1, 0, 0, 1, 0, 0, 1, 0, 7}), wire.CodeMalformed, wire.TypeParity},
		{"parity with 2^32 - 1 symbols", one(wire.TypeParity, []byte{1, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 7}), wire.CodeMalformed, wire.TypeParity},
		{"path challenge cut", one(wire.TypePathChallenge, make([]byte, 7)), wire.CodeTruncated, wire.TypePathChallenge},
		{"path response with bytes behind it", one(wire.TypePathResponse, make([]byte, 9)), wire.CodeMalformed, wire.TypePathResponse},
	}
}

// metaVector is metadata, whole.
type metaVector struct {
	name string
	meta wire.Metadata
}

func metadata() []metaVector {
	return []metaVector{
		{"all of an image", wire.Metadata{Name: "möwe.jpg", MediaType: "image/jpeg", Source: "cam-17", Captured: 1700000000123456789,
			Pairs: map[string]string{"exposure": "1/250", "": "empty key", "empty value": ""}}},
		{"before 1970", wire.Metadata{Captured: -1}},
		{"of a message", wire.Metadata{MessageType: "application/json"}},
		{"none", wire.Metadata{}},
	}
}

type badMetadata struct {
	name string
	b    []byte
	code wire.Code
}

func malformedMetadata() []badMetadata {
	return []badMetadata{
		{"field cut", []byte{1, 2, 0, 'a'}, wire.CodeTruncated},
		{"length cut", []byte{1, 2}, wire.CodeTruncated},
		{"name twice", []byte{1, 1, 0, 'a', 1, 1, 0, 'a'}, wire.CodeMalformed},
		{"key twice", []byte{5, 3, 0, 1, 0, 'k', 5, 4, 0, 1, 0, 'k', 'v'}, wire.CodeMalformed},
		{"key longer than its pair", []byte{5, 3, 0, 2, 0, 'k'}, wire.CodeTruncated},
		{"time of 7 bytes", []byte{4, 7, 0, 0, 0, 0, 0, 0, 0, 0}, wire.CodeTruncated},
		{"time of 9 bytes", []byte{4, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, wire.CodeMalformed},
		{"unknown field below 0x80", []byte{7, 0, 0}, wire.CodeUnknown},
		{"skipped field cut", []byte{0x80, 1, 0}, wire.CodeTruncated},
	}
}

type numberVector struct {
	Largest   int64  `json:"largest"`
	Truncated uint32 `json:"truncated"`
	Number    int64  `json:"number"`
}

func packetNumbers() []numberVector {
	return []numberVector{
		{-1, 0, 0}, {-1, 5, 5}, {-1, 1 << 31, 1 << 31}, {-1, math.MaxUint32, math.MaxUint32},
		{0, 0, 0}, {7, 3, 3}, {1<<32 - 1, 0, 1 << 32}, {1<<32 - 2, 0, 1 << 32}, {1 << 32, math.MaxUint32, 1<<32 - 1},
		{1<<32 + 9, 1 << 31, 1<<31 + 1<<32}, {1<<32 + 9, 1<<31 + 10, 1<<32 + 1<<31 + 10}, {1<<32 + 9, 1<<31 + 11, 1<<31 + 11},
		{0xa82f30eaa82f30ea >> 8, 0x9b32a82f, 0xa82f309b32a82f}, // closest below, above a wrap
	}
}

// pattern is the content of the digest vectors: byte i is i mod 251.
func pattern(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

var presence = wire.Presence{Instance: 0x0123456789abcdef, MaxMessage: 1 << 20, Transfers: 64}

// stream is a message as it lies in a TCP stream.
func stream(msg []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(msg))), msg...)
}
