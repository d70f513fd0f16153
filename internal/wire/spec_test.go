package wire_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/wire"
)

const specFile = "../../SPEC.md"

// column is a field of a body: its width in bytes, 0 for the rest. Numbers are
// written in decimal behind their name.
type column struct {
	name   string
	width  int
	number bool
}

func parseColumns(s string) (list []column) {
	for f := range strings.SplitSeq(s, ",") {
		name, width := path.Split(strings.TrimSpace(f))
		name, number := strings.CutSuffix(name, "#/")
		c := column{name: strings.TrimSuffix(name, "/"), number: number}
		fmt.Sscan(width, &c.width)
		list = append(list, c)
	}
	return list
}

var columns = map[wire.Type][]column{
	wire.TypeHello:   parseColumns("max message#/4, window#/4, messages#/2, ack ranges#/2, transfers#/2, metadata#/2, message bytes#/4, reorder#/4, idle (ms)#/4, instance/8, reset token/16"),
	wire.TypeOffer:   parseColumns("handle#/2, attempt#/4, ID: instance/8, ID: counter (big endian)/8, oldest#/8, kind: image/1, flags: none/1, algorithm: SHA-256/1, size#/8, metadata size#/2, metadata offset#/2, field: name/1, length#/2, image.jpg/0"),
	wire.TypeFin:     parseColumns("handle#/2, attempt#/4, size#/8, algorithm: SHA-256/1, digest/0"),
	wire.TypeData:    parseColumns("handle#/2, offset#/6, payload/0"),
	wire.TypeAck:     parseColumns("largest#/4, delay#/2, window#/4, messages#/2, more#/1, length of the range#/1"),
	wire.TypeReceipt: parseColumns("handle#/2, attempt#/4, ID/16, level: kept/1, flags: none/1, bytes#/8, algorithm: SHA-256/1, digest/0"),
	wire.TypeClose:   parseColumns("code: done/1"),
}

type dump struct{ strings.Builder }

func (d *dump) line(label string, b []byte) {
	for len(b) > 16 {
		fmt.Fprintf(d, "%x\n", b[:16])
		b = b[16:]
	}
	fmt.Fprintf(d, "%-34x%s\n", b, label)
}

func (d *dump) fields(cols []column, b []byte) {
	for _, c := range cols {
		width := c.width
		if width == 0 {
			width = len(b)
		}
		label := c.name
		if c.number {
			var v [8]byte
			copy(v[:], b[:width])
			label = fmt.Sprintf("%s %d", c.name, binary.LittleEndian.Uint64(v[:]))
		}
		d.line(label, b[:width])
		b = b[width:]
	}
}

// message writes one message of a TCP stream, annotated.
func (d *dump) message(t *testing.T, title string, h wire.Header, frames ...frame) {
	msg := buildReliable(h, frames...)
	fmt.Fprintf(d, "\n%s\n\n```\n", title)
	d.line(fmt.Sprintf("length %d", len(msg)), stream(msg)[:4])
	if h.Long {
		d.fields(parseColumns("flags: long/1, destination ID/8, packet number#/4, version#/1, source ID/8"), msg)
	} else {
		d.fields(parseColumns("flags: short/1, destination ID/8, packet number#/4"), msg)
	}
	_, rest, err := wire.ParseReliable(msg)
	if err != nil {
		t.Fatal(err)
	}
	for r := wire.NewReader(rest); r.Next(); {
		d.line(r.Type.String(), []byte{byte(r.Type)})
		if r.Type != wire.TypeData {
			d.line(fmt.Sprintf("  length %d", len(r.Body)), binary.LittleEndian.AppendUint16(nil, uint16(len(r.Body))))
		}
		var fields dump
		fields.fields(columns[r.Type], r.Body)
		d.WriteString(regexp.MustCompile(`(?m)^(.{34})(.)`).ReplaceAllString(fields.String(), "$1  $2"))
	}
	d.line("CRC32C", msg[len(msg)-wire.Trailer:])
	d.WriteString("```\n")
}

// example is a whole small transfer over TCP, in three messages.
func example(t *testing.T) string {
	content := []byte("hello, image")
	h := chunk.NewHasher(chunk.SHA256)
	h.Write(content)
	root := h.Root().Append(nil)
	name := (&wire.Metadata{Name: "image.jpg"}).Append(nil)
	const initiator, first, responder = 0x0807060504030201, 0x1817161514131211, 0x2827262524232221
	camera := &wire.Hello{MaxMessage: 2048, AckRanges: 1, IdleMillis: 30000, Instance: 0x1716151413121110}
	arrived := newAck(wire.Ack{Window: hello.Window, Messages: hello.Messages}, chunk.Range{End: 1})

	var d dump
	d.message(t, "The initiator, all at once:", wire.Header{Long: true, Dest: first, Version: 1, Source: initiator},
		camera,
		&wire.Offer{Handle: 1, Attempt: 1, ID: id, Oldest: 42, Algorithm: 2, Size: int64(len(content)), MetaSize: uint16(len(name)), Meta: name},
		&wire.Fin{Handle: 1, Attempt: 1, Size: int64(len(content)), Algorithm: 2, Digest: root},
		&wire.Data{Handle: 1, Payload: content})
	d.message(t, "The responder, when the image is stored:", wire.Header{Long: true, Dest: initiator, Version: 1, Source: responder},
		hello, arrived,
		&wire.Receipt{Handle: 1, Attempt: 1, ID: id, Level: wire.LevelKept, Bytes: int64(len(content)), Algorithm: 2, Digest: root})
	d.message(t, "The initiator:", wire.Header{Dest: responder, Number: 1},
		newAck(wire.Ack{}, chunk.Range{End: 1}), &wire.Close{})
	return d.String()
}

// The example in SPEC.md is what the codec writes.
func TestSpecExample(t *testing.T) {
	const begin, end = "<!-- written by: go test ./internal/wire -update -->\n", "\n<!-- end of what is written -->"
	spec, err := os.ReadFile(specFile)
	if err != nil {
		t.Fatal(err)
	}
	spec = bytes.ReplaceAll(spec, []byte("\r\n"), []byte("\n"))
	before, rest, ok1 := bytes.Cut(spec, []byte(begin))
	got, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the example", specFile)
	}
	want := example(t)
	if *update {
		if err := os.WriteFile(specFile, []byte(string(before)+begin+want+end+string(after)), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(got) != want {
		t.Errorf("the example in %s differs from what the codec writes: go test ./internal/wire -run Spec -update", specFile)
	}
}

// Every frame, code and constant is in SPEC.md under its number.
func TestSpecNames(t *testing.T) {
	spec, err := os.ReadFile(specFile)
	if err != nil {
		t.Fatal(err)
	}
	has := func(format string, a ...any) {
		if s := fmt.Sprintf(format, a...); !bytes.Contains(spec, []byte(s)) {
			t.Errorf("%s lacks %q", specFile, s)
		}
	}
	for kind := wire.TypePadding; kind <= wire.TypeVersions; kind++ {
		has("| 0x%02x | %v | ", uint8(kind), kind)
	}
	has("| 0x%02x | %v | ", uint8(wire.TypePathChallenge), wire.TypePathChallenge)
	has("| 0x%02x | %v | ", uint8(wire.TypePathResponse), wire.TypePathResponse)
	has("| 0x%02x | %v | ", uint8(wire.TypeParity), wire.TypeParity)
	for code := wire.CodeDone; code <= wire.CodeUnanswered; code++ {
		has("| %d | %v | ", uint8(code), code)
	}
	has("least max message | %d |", wire.MinMessage)
	has("overhead of DATA | %d in a message", wire.ShortHeader+wire.DataHeader+wire.Trailer)
	has("ACK ranges | %d |", wire.MaxAckRanges)
}
