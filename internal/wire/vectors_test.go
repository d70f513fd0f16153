package wire_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash"
	"os"
	"os/exec"
	"reflect"
	"testing"
	"unicode"

	"github.com/zeebo/xxh3"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/wire"
)

const vectorFile = "testdata/vectors.json"

var update = flag.Bool("update", false, "write testdata/vectors.json and the example in SPEC.md anew")

type object = map[string]any

// describe gives the fields of a frame as vectors.json has them.
func describe(t wire.Type, f any) object {
	o := object{"type": t.String()}
	if a, ok := f.(*ack); ok {
		o["largest"], o["delay"], o["window"], o["messages"] = a.Largest, a.Delay, a.Window, a.Messages
		ranges := [][2]int64{}
		for r := range a.Ranges(int64(a.Largest)) {
			ranges = append(ranges, [2]int64{r.Start, r.End - 1})
		}
		o["ranges"] = ranges
		return o
	}
	addFields(o, f)
	return o
}

func addFields(o object, of any) {
	v := reflect.ValueOf(of).Elem()
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		if !field.IsExported() || field.Name == "Response" {
			continue
		}
		name := string(unicode.ToLower(rune(field.Name[0]))) + field.Name[1:]
		switch x := value.Interface().(type) {
		case []byte:
			o[name] = hex.EncodeToString(x)
		case [16]byte:
			o[name] = hex.EncodeToString(x[:])
		case wire.ConnID:
			o[name] = fmt.Sprintf("%016x", uint64(x))
		case uint64:
			o[name] = fmt.Sprintf("%016x", x)
		default:
			o[name] = x
		}
	}
	if _, ok := o["iD"]; ok {
		o["id"] = o["iD"]
		delete(o, "iD")
	}
}

// describeMessage decodes a message and gives it as vectors.json has it.
func describeMessage(t *testing.T, name string, msg []byte) object {
	h, types, frames, err := decode(msg)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	header := object{}
	addFields(header, &h)
	list := []object{}
	for i, f := range frames {
		list = append(list, describe(types[i], f))
	}
	return object{"name": name, "hex": hex.EncodeToString(msg), "header": header, "frames": list}
}

var xxh3Algorithm = chunk.Algorithm{ID: 1, Name: "xxh3-128", New: func() hash.Hash { return xxh3.New128() }}

// vectors encodes the tables, and describes what decoding gives.
func vectors(t *testing.T) []byte {
	var valid, invalid, meta, badMeta, digests []object
	for _, v := range messages() {
		o := describeMessage(t, v.name, build(v.header, v.frames...))
		o["canonical"] = !v.notCanonical
		o["reliable"] = hex.EncodeToString(buildReliable(v.header, v.frames...))
		valid = append(valid, o)
	}
	for _, v := range malformed() {
		o := object{"name": v.name, "hex": hex.EncodeToString(v.msg), "error": v.code.String()}
		if v.frame != wire.NoFrame {
			o["frame"] = v.frame.String()
		}
		invalid = append(invalid, o)
	}
	for _, v := range metadata() {
		o := object{"name": v.name, "hex": hex.EncodeToString(v.meta.Append(nil))}
		addFields(o, &v.meta)
		o["image"], o["name"] = o["name"], v.name
		meta = append(meta, o)
	}
	for _, v := range malformedMetadata() {
		badMeta = append(badMeta, object{"name": v.name, "hex": hex.EncodeToString(v.b), "error": v.code.String()})
	}
	for _, alg := range []chunk.Algorithm{xxh3Algorithm, chunk.SHA256} {
		for _, size := range []int{0, 1, chunk.BlockSize - 1, chunk.BlockSize, chunk.BlockSize + 1, 3_000_000} {
			h := chunk.NewHasher(alg)
			h.Write(pattern(size))
			digests = append(digests, object{"algorithm": alg.ID, "size": size, "root": hex.EncodeToString(h.Root().Append(nil))})
		}
	}
	there := object{"hex": hex.EncodeToString(presence.Append(nil))}
	addFields(there, &presence)
	b, err := json.MarshalIndent(object{
		"about":             "test vectors of the pixferry native protocol, version 1: see section 17 of SPEC.md",
		"messages":          valid,
		"malformed":         invalid,
		"metadata":          meta,
		"malformedMetadata": badMeta,
		"packetNumbers":     packetNumbers(),
		"digests":           digests,
		"presence":          there,
	}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

// The file is what the codec writes. Run with -update after a change of the
// protocol, and read the difference.
func TestVectorsAreCurrent(t *testing.T) {
	want := vectors(t)
	if *update {
		if err := os.WriteFile(vectorFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from what the codec writes: go test ./internal/wire -run Vectors -update", vectorFile)
	}
}

// What the codec writes for a table entry, it reads as that entry.
func TestRoundTrip(t *testing.T) {
	for _, v := range messages() {
		msg := build(v.header, v.frames...)
		h, _, frames, err := decode(msg)
		if err != nil {
			t.Errorf("%s: %v", v.name, err)
			continue
		}
		if again := build(h, frames...); h != v.header || bytes.Equal(again, msg) == v.notCanonical && v.name != "a frame of a later version is skipped" {
			t.Errorf("%s: %+v\n% x\n% x", v.name, h, msg, again)
		}
		for i, f := range frames {
			if want, ok := v.frames[i].(*ack); ok {
				if !want.received.Equal(lowered(f.(*ack))) {
					t.Errorf("%s: other packet numbers", v.name)
				}
			} else if !v.notCanonical && fmt.Sprintf("%+v", f) != fmt.Sprintf("%+v", v.frames[i]) {
				t.Errorf("%s: read %+v, want %+v", v.name, f, v.frames[i])
			}
		}
	}
	for _, v := range metadata() {
		var m wire.Metadata
		if err := m.Parse(v.meta.Append(nil)); err != nil || !reflect.DeepEqual(m, v.meta) {
			t.Errorf("%s: %+v %v", v.name, m, err)
		}
	}
	var p wire.Presence
	if err := p.Parse(presence.Append(nil)); err != nil || p != presence {
		t.Errorf("presence: %+v %v", p, err)
	}
}

// lowered takes the 2^32 off that ack.Parse has added.
func lowered(f *ack) *chunk.Ranges {
	var set chunk.Ranges
	for r := range f.received.All() {
		set.Add(r.Start-1<<32, r.End-1<<32)
	}
	return &set
}

func TestMalformed(t *testing.T) {
	for _, v := range malformed() {
		if _, _, _, err := decode(v.msg); !isCode(err, v.code, v.frame) {
			t.Errorf("%s: %v, want %v in %v", v.name, err, v.code, v.frame)
		}
	}
	for _, v := range malformedMetadata() {
		if err := new(wire.Metadata).Parse(v.b); !isCode(err, v.code, wire.TypeOffer) {
			t.Errorf("metadata, %s: %v, want %v", v.name, err, v.code)
		}
	}
	b := presence.Append(nil)
	for i := range b {
		var e *wire.Error
		b[i] ^= 0x80
		if err := new(wire.Presence).Parse(b); !errors.As(err, &e) {
			t.Errorf("presence with byte %d changed: %v", i, err)
		}
		b[i] ^= 0x80
		if err := new(wire.Presence).Parse(b[:i]); !errors.As(err, &e) {
			t.Errorf("presence of %d bytes: %v", i, err)
		}
	}
}

// A second implementation, written from SPEC.md, agrees on every vector.
func TestVectorsInPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil || exec.CommandContext(t.Context(), python, "--version").Run() != nil {
		t.Skip("needs python3")
	}
	out, err := exec.CommandContext(t.Context(), python, "testdata/check_vectors.py", vectorFile).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("check_vectors.py: %v", err)
	}
}
