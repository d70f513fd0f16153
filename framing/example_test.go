package framing_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/pixferry/pixferry/framing"
)

// A header of one's own:
//
//	magic "PIC1" 4 | kind 1 | temperature 2 signed BE | offset 6 LE | length 2 BE | payload | CRC32C 4
type tile struct {
	Kind        uint8
	Temperature int16
	Offset      uint64
	Payload     []byte
}

const (
	tileMagic  = "PIC1"
	tileHeader = 4 + 1 + 2 + 6 + 2
)

var tilePayload = framing.Prefix{Width: 2, Order: framing.BigEndian, Max: 1024}

func (t *tile) Append(b []byte) ([]byte, error) {
	from := len(b)
	b = append(b, tileMagic...)
	b = append(b, t.Kind)
	b = binary.BigEndian.AppendUint16(b, uint16(t.Temperature))
	b = framing.AppendUint(b, framing.LittleEndian, 6, t.Offset)
	b, err := framing.AppendPrefixed(b, tilePayload, t.Payload)
	if err != nil {
		return b[:from], err
	}
	return framing.AppendCRC32C(b, from), nil
}

func (t *tile) Parse(b []byte) error {
	b, err := framing.TrimCRC32C(b)
	if err != nil {
		return err
	}
	c := framing.NewCursor(b)
	c.Magic(tileMagic)
	t.Kind = c.Uint8()
	t.Temperature = int16(c.Int(framing.BigEndian, 2))
	t.Offset = c.Uint(framing.LittleEndian, 6)
	t.Payload = c.Prefixed(tilePayload)
	return c.Err()
}

func ExampleCursor() {
	b, err := (&tile{Kind: 7, Temperature: -12, Offset: 1 << 40, Payload: []byte("pixels")}).Append(nil)
	fmt.Printf("%x %v\n", b, err)

	var t tile
	err = t.Parse(b)
	fmt.Println(t.Kind, t.Temperature, t.Offset, string(t.Payload), err)

	b[8]++
	fmt.Println(t.Parse(b))
	// Output:
	// 5049433107fff40000000000010006706978656c7374cbbae2 <nil>
	// 7 -12 1099511627776 pixels <nil>
	// framing: wrong checksum: bytes were changed or lost on the way
}

func ExamplePrefix() {
	var conn bytes.Buffer // a TCP connection, say
	prefix := framing.Prefix{Width: 2, Order: framing.BigEndian, Max: 100}

	w := framing.NewWriter(&conn, prefix)
	fmt.Println(w.WriteFrames([]byte("one"), []byte("two")))
	fmt.Println(w.WriteFrames(make([]byte, 101)))
	fmt.Printf("%q\n", conn.String())

	var frame []byte
	for {
		var err error
		if frame, err = prefix.ReadFrame(&conn, frame); err != nil {
			fmt.Println(err)
			break
		}
		fmt.Printf("%s\n", frame)
	}

	_, err := prefix.ReadFrame(strings.NewReader("GET / HTTP/1.1"), frame)
	var tooLong *framing.TooLongError
	if errors.As(err, &tooLong) {
		fmt.Println("announced", tooLong.Length, "allowed", tooLong.Max)
	}
	// Output:
	// <nil>
	// framing: frame of 101 bytes is over the limit of 100: check that both ends use the same prefix, or raise its Max or Width
	// "\x00\x03one\x00\x03two"
	// one
	// two
	// EOF
	// announced 18245 allowed 100
}

func ExampleScanner() {
	good, _ := (&tile{Payload: []byte("good")}).Append(nil)
	next, _ := (&tile{Payload: []byte("next")}).Append(nil)
	cut := good[:len(good)-3] // the line lost three bytes
	line := io.MultiReader(strings.NewReader("noise PIC"), bytes.NewReader(cut),
		bytes.NewReader(good), strings.NewReader("\xff\xff"), bytes.NewReader(next))

	s := framing.NewScanner(line, framing.Layout{
		Magic:  tileMagic,
		Header: tileHeader,
		Size: func(header []byte) int64 {
			return tileHeader + int64(binary.BigEndian.Uint16(header[tileHeader-2:])) + 4
		},
		Valid: func(frame []byte) bool { return new(tile).Parse(frame) == nil },
		Max:   tileHeader + 1024 + 4,
	})
	for {
		frame, err := s.Next()
		if err != nil {
			fmt.Println(err, s.Skipped())
			return
		}
		var t tile
		fmt.Println(t.Parse(frame), string(t.Payload))
	}
	// Output:
	// <nil> good
	// <nil> next
	// EOF 31
}
