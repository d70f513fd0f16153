package mqttx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/pixferry/pixferry/framing"
)

// A BaseFunction says what a message of the base protocol is about, and what an answer answers.
type BaseFunction int8

const (
	BaseBegin    BaseFunction = 1 // an image follows
	BaseData     BaseFunction = 2 // a package of it
	BaseFinished BaseFunction = 3 // all was sent; as an answer: the transfer is over
)

func (f BaseFunction) valid() bool { return BaseBegin <= f && f <= BaseFinished }

const (
	baseMagic   = 0xffffeeee // of messages
	answerMagic = 0xeeeeffff // of answers

	maxNumber = math.MaxInt16 // of a package, counted from 1
	maxData   = math.MaxInt16 // bytes in a message
)

// A BaseMessage is a message to BASE. Integers are little-endian and signed:
//
//	0            4          5        7        9
//	+------------+----------+--------+--------+----------------+
//	| ffffeeee   | function | number | length | data: length   |
//	+------------+----------+--------+--------+----------------+
//
// A begin message has a BaseHead as data and the number 0. Data packages are numbered from 0. A
// finished message has no data and the number 0.
type BaseMessage struct {
	Function BaseFunction
	Number   int    // -32,768 to 32,767; the lower 16 bits are sent
	Data     []byte // at most 32,767 bytes
}

// Append appends the message to b. If the data are too long it returns b unchanged and an error.
func (m *BaseMessage) Append(b []byte) ([]byte, error) {
	if len(m.Data) > maxData {
		return b, fmt.Errorf("a message to BASE with %d bytes of data: at most %d are possible", len(m.Data), maxData)
	}
	b = binary.LittleEndian.AppendUint32(b, baseMagic)
	b = append(b, byte(m.Function))
	b = binary.LittleEndian.AppendUint16(b, uint16(m.Number))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(m.Data)))
	return append(b, m.Data...), nil
}

// Parse reads a message, which must fill b. Data aliases b. The error matches framing.ErrMagic
// for bytes of another protocol and framing.ErrShort for a cut message.
func (m *BaseMessage) Parse(b []byte) error {
	c := framing.NewCursor(b)
	c.Magic("\xee\xee\xff\xff")
	m.Function = BaseFunction(c.Int(framing.LittleEndian, 1))
	m.Number = int(c.Int(framing.LittleEndian, 2))
	m.Data = c.Bytes(int(c.Int(framing.LittleEndian, 2)))
	switch {
	case c.Err() != nil:
		return c.Err()
	case c.Len() > 0:
		return fmt.Errorf("%d bytes follow the data of a message to BASE", c.Len())
	case !m.Function.valid():
		return fmt.Errorf("a message to BASE with the unknown function %d", m.Function)
	}
	return nil
}

// A BaseAnswer is what BASE answers to a message: 8 bytes, little-endian and signed.
//
//	0            4          5        7        8
//	+------------+----------+--------+--------+
//	| eeeeffff   | function | number | status |
//	+------------+----------+--------+--------+
//
// Status 1 (Whole) asks for the next package, whatever Number says. Status 0 asks for package
// Number, counted from 1 (or 0, see [Base].ZeroBased). With BaseFinished the transfer is over,
// whatever the status.
type BaseAnswer struct {
	Function BaseFunction
	Number   int // -32,768 to 32,767; the lower 16 bits are sent
	Whole    bool
}

// Append appends the answer to b.
func (a *BaseAnswer) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, answerMagic)
	b = append(b, byte(a.Function))
	b = binary.LittleEndian.AppendUint16(b, uint16(a.Number))
	if a.Whole {
		return append(b, 1)
	}
	return append(b, 0)
}

// Parse reads an answer, which must fill b. Its errors are those of [BaseMessage.Parse].
func (a *BaseAnswer) Parse(b []byte) error {
	c := framing.NewCursor(b)
	c.Magic("\xff\xff\xee\xee")
	a.Function = BaseFunction(c.Int(framing.LittleEndian, 1))
	a.Number = int(c.Int(framing.LittleEndian, 2))
	status := c.Int(framing.LittleEndian, 1)
	a.Whole = status == 1
	switch {
	case c.Err() != nil:
		return c.Err()
	case c.Len() > 0:
		return fmt.Errorf("%d bytes follow an answer of BASE", c.Len())
	case !a.Function.valid():
		return fmt.Errorf("an answer of BASE with the unknown function %d", a.Function)
	case status != 0 && status != 1 && a.Function != BaseFinished:
		return fmt.Errorf("an answer of BASE with the unknown status %d", status)
	}
	return nil
}

// A BaseHead is the data of a begin message: the text NAME;SIZE in UTF-8, for example
// image.jpg;35935.
type BaseHead struct {
	Name string // without ';'
	Size int64  // bytes, in decimal
}

// Append appends the text to b. It does not check the fields.
func (h *BaseHead) Append(b []byte) []byte {
	b = append(append(b, h.Name...), ';')
	return strconv.AppendInt(b, h.Size, 10)
}

// Parse reads the text. A name with a ';' is accepted: the last one separates.
func (h *BaseHead) Parse(b []byte) error {
	i := strings.LastIndexByte(string(b), ';')
	if i < 0 {
		return errors.New("a begin message without ';' between name and size")
	}
	size, err := strconv.ParseUint(string(b[i+1:]), 10, 63)
	if err != nil {
		return fmt.Errorf("the size in a begin message: %w", err)
	}
	h.Name, h.Size = string(b[:i]), int64(size)
	return nil
}
