package face

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pixferry/pixferry/transport"
)

// timeLayout is how terminals and services write times, which are local.
const timeLayout = "2006-01-02 15:04:05"

// A Record is one element of a report. Its values are JSON as the terminal wrote it, and nil if
// missing.
type Record struct {
	Num          json.RawMessage // who: num, customId
	Name         json.RawMessage
	Picture      json.RawMessage // Base64, perhaps with a data: prefix
	VerifiedCode json.RawMessage // Fungxi: 0 passed; HFSecurity, VerifyStatus: 1 allowed
	Time         json.RawMessage // by the terminal's clock
	PersonType   json.RawMessage // Fungxi: "1" enrolled
	Number       json.RawMessage // HFSecurity: RecordID or SnapID, which is to be acknowledged
	Raw          json.RawMessage // the element itself
	// Verified says that this is somebody enrolled, who has passed. It is never set in a Stranger
	// report.
	Verified bool
}

// text is the content of a JSON string, or the text of another value.
func text(v json.RawMessage) string {
	if len(v) > 0 && v[0] == '"' {
		var s string
		if json.Unmarshal(v, &s) == nil {
			return s
		}
	}
	return string(v)
}

// quote is s as a JSON string.
func quote(s string) json.RawMessage {
	b, err := json.Marshal(s)
	if err != nil {
		return json.RawMessage(`""`) // cannot be: every string can be marshalled
	}
	return b
}

var errNoPicture = errors.New("there is no picture")

// Decode returns the bytes of the picture. It also accepts a data: prefix, line breaks, missing
// padding and the alphabet for URLs.
func (r *Record) Decode() ([]byte, error) {
	if len(r.Picture) == 0 || string(r.Picture) == "null" {
		return nil, errNoPicture
	}
	if r.Picture[0] != '"' {
		return nil, errors.New("the picture is not a JSON string")
	}
	s := strings.TrimSpace(text(r.Picture))
	if prefix, rest, ok := strings.Cut(s, ","); ok {
		if !strings.HasPrefix(prefix, "data:") || !strings.HasSuffix(prefix, ";base64") {
			return nil, fmt.Errorf("the picture begins with %.40q, which is not a data: prefix for Base64", prefix)
		}
		s = strings.TrimSpace(rest)
	}
	s = strings.TrimRight(s, "=\r\n")
	if s == "" {
		return nil, errNoPicture
	}
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		encoding = base64.RawURLEncoding
	}
	b, err := encoding.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("the picture is not Base64: %w", err)
	}
	return b, nil
}

// ID returns the transfer ID of a record. It is the same whenever the same terminal reports the
// same num, time and picture, so that duplicates are recognised.
func (r *Record) ID(sn string, picture []byte) transport.ID {
	content := sha256.Sum256(picture)
	var key []byte
	for _, part := range [][]byte{[]byte(sn), r.Num, r.Time, content[:]} {
		key = binary.AppendUvarint(key, uint64(len(part)))
		key = append(key, part...)
	}
	sum := sha256.Sum256(key)
	return transport.ID(sum[:16])
}

// When returns the record's time, in the local zone; zero if it cannot be read.
func (r *Record) When() time.Time {
	s := text(r.Time)
	if t, err := time.ParseInLocation(timeLayout, s, time.Local); err == nil {
		return t
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t
	}
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err != nil || n <= 0:
		return time.Time{}
	case n > 1e11: // milliseconds
		return time.UnixMilli(n)
	}
	return time.Unix(n, 0)
}

// Keys of Meta, on either side.
const (
	keyCmd          = "cmd"
	keyNum          = "num"
	keyName         = "name"
	keyVerifiedCode = "verifiedCode"
	keyTime         = "time"
	keyPersonType   = "personType"
)

// meta is the record as an image's metadata. A value that is absurdly long is cut: Raw
// has all of it.
func (r *Record) meta(cmd string) map[string]string {
	const most = 1 << 10
	m := map[string]string{keyCmd: cmd}
	for key, v := range map[string]json.RawMessage{
		keyNum: r.Num, keyName: r.Name, keyVerifiedCode: r.VerifiedCode, keyTime: r.Time, keyPersonType: r.PersonType,
	} {
		if len(v) > 0 {
			s := text(v)
			m[key] = strings.ToValidUTF8(s[:min(len(s), most)], "")
		}
	}
	return m
}

// object returns v if it is a JSON object, with bytes that are not UTF-8 replaced: a
// record is worth more than a letter of a name.
func object(v []byte) ([]byte, error) {
	if v = bytes.TrimSpace(bytes.TrimPrefix(v, []byte("\ufeff"))); !utf8.Valid(v) {
		v = bytes.ToValidUTF8(v, []byte("\ufffd"))
	}
	if len(v) == 0 || v[0] != '{' {
		return nil, fmt.Errorf("%.40q is not a JSON object", v)
	}
	return v, nil
}
