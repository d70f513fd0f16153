package wire

import (
	"encoding/binary"
	"fmt"
)

// Type is the type of a frame. Unknown types from 0x80 on are skipped.
type Type uint8

// The frames of SPEC.md section 5.
const (
	TypePadding       Type = 0x00
	TypeData          Type = 0x01
	TypeAck           Type = 0x02
	TypeHello         Type = 0x03
	TypeOffer         Type = 0x04
	TypeAccept        Type = 0x05
	TypeResume        Type = 0x06
	TypeFin           Type = 0x07
	TypeReceipt       Type = 0x08
	TypeReject        Type = 0x09
	TypeCancel        Type = 0x0a
	TypePing          Type = 0x0b
	TypeClose         Type = 0x0c
	TypeReset         Type = 0x0d
	TypeVersions      Type = 0x0e
	TypePathChallenge Type = 0x12
	TypePathResponse  Type = 0x13
	TypeParity        Type = 0x14

	firstSkippable Type = 0x80
	NoFrame        Type = 0xff // in an Error: not in a frame; never on the wire
)

var typeNames = [...]string{"PADDING", "DATA", "ACK", "HELLO", "OFFER", "ACCEPT", "RESUME", "FIN", "RECEIPT", "REJECT",
	"CANCEL", "PING", "CLOSE", "RESET", "VERSIONS", "HANDSHAKE", "RETRY", "TOKEN", "PATH_CHALLENGE", "PATH_RESPONSE", "PARITY"}

func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("0x%02x", uint8(t))
}

// known reports whether version 1 uses the type. 0x0f to 0x11 (handshake,
// retry, token) are reserved.
func (t Type) known() bool {
	return t <= TypeVersions || t >= TypePathChallenge && t <= TypeParity
}

// Eliciting reports whether a message with such a frame is to be acknowledged.
func (t Type) Eliciting() bool {
	switch t {
	case TypePadding, TypeAck, TypeClose, TypeReset, TypeVersions:
		return false
	}
	return true
}

// FrameHeader is the size in bytes of what precedes the body of every frame but
// DATA.
//
//	 0      1 ... 2
//	+------+--------+---------------------+
//	| type | length | body: length bytes  |
//	+------+--------+---------------------+
const FrameHeader = 1 + 2

// MaxBody is the longest body in bytes of a frame other than DATA.
const MaxBody = 1<<16 - 1

// appendFrame appends the header of a frame with a body of n bytes.
func appendFrame(b []byte, t Type, n int) []byte {
	return append(b, byte(t), byte(n), byte(n>>8))
}

// Reader goes through the frames of a message:
//
//	r := wire.NewReader(frames)
//	for r.Next() {
//		switch r.Type { ... d.Parse(r.Body) ... }
//	}
//	return r.Err()
//
// Types from 0x80 on are returned too, and are to be ignored.
type Reader struct {
	Type Type
	Body []byte // aliases the message

	rest []byte
	err  error
}

// NewReader returns a Reader of the frames that Parse returned.
func NewReader(frames []byte) Reader { return Reader{rest: frames} }

// Next goes to the next frame. It returns false at the end and at an error.
func (r *Reader) Next() bool {
	b := r.rest
	if len(b) == 0 {
		return false
	}
	r.Type = Type(b[0])
	if r.Type == TypeData {
		r.Body, r.rest = b[1:], nil
		return true
	}
	return r.nextBody(b)
}

func (r *Reader) nextBody(b []byte) bool {
	r.rest = nil
	if r.Type < firstSkippable && !r.Type.known() {
		r.err = &Error{CodeUnknown, r.Type, "not a frame of version 1"}
		return false
	}
	if len(b) < FrameHeader {
		r.err = &Error{CodeTruncated, r.Type, "the message ends inside the frame's header"}
		return false
	}
	n := int(binary.LittleEndian.Uint16(b[1:]))
	if b = b[FrameHeader:]; n > len(b) {
		r.err = &Error{CodeTruncated, r.Type, "the message ends inside the frame's body"}
		return false
	}
	r.Body, r.rest = b[:n:n], b[n:]
	return true
}

// Err returns nil, or the *Error that ended Next.
func (r *Reader) Err() error { return r.err }

// AppendPing appends a PING frame, which does nothing but elicit an ACK.
func AppendPing(b []byte) []byte { return appendFrame(b, TypePing, 0) }

// AppendPadding appends a PADDING frame of n bytes in all, n being FrameHeader
// to FrameHeader+MaxBody. What is in it is ignored.
func AppendPadding(b []byte, n int) []byte {
	b = appendFrame(b, TypePadding, n-FrameHeader)
	return append(b, make([]byte, n-FrameHeader)...)
}
