package transport

import (
	"bufio"
	"errors"
	"io"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/framing"
)

// A record of the receipt log and of the block journals. What follows the last
// whole record of a file is a torn tail.
//
//	+--------+---------+--------------------+
//	| length | payload | CRC-32C of payload |
//	+--------+---------+--------------------+
//	    4     \_________ length bytes _____/
//
// Integers are little endian. A payload begins with its kind, one byte.
var recordPrefix = framing.Prefix{Width: 4, Max: 64 << 10}

// appendRecord appends a record with the given payload to b.
func appendRecord(b, payload []byte) ([]byte, error) {
	return framing.AppendPrefixed(b, recordPrefix, framing.AppendCRC32C(payload, 0))
}

// readRecords calls each with the payloads of r, which are valid during the
// call, up to a torn tail. It returns the bytes of whole records, and an error
// only from r or each.
func readRecords(r io.Reader, each func(payload []byte) error) (good int64, err error) {
	br := bufio.NewReaderSize(r, 32<<10)
	var frame []byte
	for {
		frame, err = recordPrefix.ReadFrame(br, frame)
		tooLong := (*framing.TooLongError)(nil)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &tooLong) {
			return good, nil
		}
		if err != nil {
			return good, err
		}
		payload, err := framing.TrimCRC32C(frame)
		if err != nil || len(payload) == 0 {
			return good, nil
		}
		if err := each(payload); err != nil {
			return good, err
		}
		good += int64(recordPrefix.Width + len(frame))
	}
}

// A digest in a record: algorithm, length, bytes; one byte for each of the first
// two. Length 0: no digest.
func appendDigest(b []byte, d chunk.Digest) []byte {
	return d.Append(append(b, d.Algorithm(), byte(d.Len())))
}

func consumeDigest(c *framing.Cursor) (chunk.Digest, error) {
	algorithm := c.Uint8()
	sum := c.Bytes(int(c.Uint8()))
	if c.Err() != nil || len(sum) == 0 {
		return chunk.Digest{}, c.Err()
	}
	return chunk.NewDigest(algorithm, sum)
}
