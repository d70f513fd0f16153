package face

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"
)

// A Dialect is what a family of terminals speaks.
type Dialect uint8

const (
	Fungxi     Dialect = iota // cmd: heartU, verifiedRecordU, ...
	HFSecurity                // operator: RecPush, ..., acknowledged with PushAck
)

// String returns "fungxi" or "hfsecurity".
func (d Dialect) String() string {
	if d == HFSecurity {
		return "hfsecurity"
	}
	return "fungxi"
}

// A Kind says what a Report is about.
type Kind uint8

const (
	Other     Kind = iota // whatever the package does not know
	Heartbeat             // heartU, HeartBeat
	Verified              // records of people who were compared: verifiedRecordU, RecPush
	Stranger              // records of people who are unknown: strangerRecordU, StrSnapPush
	Answer                // the service's own heartD or PushAck
)

// String returns the kind in lower case, such as "stranger".
func (k Kind) String() string {
	return [...]string{"other", "heartbeat", "verified", "stranger", "answer"}[min(k, Answer)]
}

var kinds = [...]map[string]Kind{
	Fungxi:     {"heartU": Heartbeat, "verifiedRecordU": Verified, "strangerRecordU": Stranger, "heartD": Answer},
	HFSecurity: {"HeartBeat": Heartbeat, "RecPush": Verified, "VerifyPush": Verified, "StrSnapPush": Stranger, "SnapPush": Stranger, "PushAck": Answer},
}

// maxRecords bounds the records of one report.
const maxRecords = 4096

// A Report is a JSON object from a terminal or from the service.
type Report struct {
	Kind    Kind
	Cmd     string // cmd, or operator; empty if there is no such string
	Payload []byte // the object, with bytes that are not UTF-8 replaced

	dialect   Dialect
	data      json.RawMessage // Fungxi: data; HFSecurity: info
	messageID json.RawMessage
}

// Parse reads an MQTT payload.
func (d Dialect) Parse(payload []byte) (Report, error) {
	payload, err := object(payload)
	if err != nil {
		return Report{}, err
	}
	var r struct {
		Cmd, Operator, Data, Info, MessageID json.RawMessage
	}
	if err := json.Unmarshal(payload, &r); err != nil {
		return Report{}, fmt.Errorf("not the JSON of a report: %w", err)
	}
	report := Report{Payload: payload, dialect: d, data: r.Data, messageID: r.MessageID}
	if d == HFSecurity {
		r.Cmd, report.data = r.Operator, r.Info
	}
	if len(r.Cmd) > 0 && r.Cmd[0] == '"' {
		report.Cmd = text(r.Cmd)
	}
	report.Kind = kinds[d][report.Cmd]
	return report, nil
}

// Records yields the records of a Verified or Stranger report, and an error for each that is
// damaged, or for the list.
func (r Report) Records() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if r.dialect == HFSecurity {
			yield(r.pushed())
			return
		}
		dec := json.NewDecoder(bytes.NewReader(r.data))
		if t, err := dec.Token(); err != nil || t != json.Delim('[') {
			yield(Record{}, fmt.Errorf("%s: data is not a list", r.Cmd))
			return
		}
		for n := 0; dec.More(); n++ {
			var raw json.RawMessage
			if n == maxRecords {
				yield(Record{}, fmt.Errorf("%s: more than %d records: the others are not taken", r.Cmd, maxRecords))
				return
			}
			if err := dec.Decode(&raw); err != nil {
				yield(Record{}, err) // cannot be: Parse has seen all of it
				return
			}
			rec, err := r.parseRecord(raw)
			if err != nil {
				err = fmt.Errorf("%s: record %d: %w", r.Cmd, n, err)
			}
			if !yield(rec, err) {
				return
			}
		}
	}
}

// parseRecord reads an element of a Fungxi report.
func (r Report) parseRecord(raw json.RawMessage) (Record, error) {
	var e struct {
		Num, Name, LiveImageBase64, VerifiedCode, Time, PersonType json.RawMessage
	}
	if len(raw) == 0 || raw[0] != '{' {
		return Record{}, errors.New("not an object")
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return Record{}, err
	}
	return Record{
		Num: e.Num, Name: e.Name, Picture: e.LiveImageBase64, VerifiedCode: e.VerifiedCode, Time: e.Time, PersonType: e.PersonType, Raw: raw,
		Verified: r.Kind == Verified && text(e.PersonType) == "1" && text(e.VerifiedCode) == "0",
	}, nil
}

// pushed reads the record of an HFSecurity report, with the keys as they are misspelt.
// Case does not matter.
func (r Report) pushed() (Record, error) {
	type pictures struct{ Pic, SnapPic, SanpPic json.RawMessage }
	var top pictures
	var e struct {
		pictures
		CustomID, PersonID, PersonName, PersionName, Name json.RawMessage
		RecordID, SnapID, Time, CreateTime                json.RawMessage
		VerifyStatus, VerfyStatus, PersonType             json.RawMessage
	}
	if len(r.data) == 0 || r.data[0] != '{' {
		return Record{}, fmt.Errorf("%s: info is not an object", r.Cmd)
	}
	if err := errors.Join(json.Unmarshal(r.Payload, &top), json.Unmarshal(r.data, &e)); err != nil {
		return Record{}, fmt.Errorf("%s: %w", r.Cmd, err)
	}
	rec := Record{
		Num: first(e.CustomID, e.PersonID), Name: first(e.PersonName, e.PersionName, e.Name),
		Picture: first(e.Pic, e.SnapPic, e.SanpPic, top.Pic, top.SnapPic, top.SanpPic),
		Time:    first(e.Time, e.CreateTime), VerifiedCode: first(e.VerifyStatus, e.VerfyStatus), PersonType: e.PersonType,
		Number: first(e.RecordID, e.SnapID), Raw: r.Payload,
	}
	rec.Verified = r.Kind == Verified && text(rec.VerifiedCode) == "1"
	return rec, nil
}

func first(values ...json.RawMessage) json.RawMessage {
	for _, v := range values {
		if len(v) > 0 && string(v) != "null" {
			return v
		}
	}
	return nil
}

// topics returns where a terminal publishes, records first and strangers second, and
// where it takes commands.
func (d Dialect) topics(sn string) (up []string, down string) {
	if d == HFSecurity {
		down = "mqtt/face/" + sn
		return []string{down + "/Rec", down + "/Snap", down + "/Ack"}, down
	}
	return []string{"fungxi_" + sn + "_upLink"}, "fungxi_" + sn + "_downLink"
}

// AppendRecord appends the report of one record to b. Values that are nil are left out.
func (d Dialect) AppendRecord(b []byte, stranger bool, r Record) []byte {
	fields, begin, end := []field{
		{"num", r.Num}, {"name", r.Name}, {"verifiedCode", r.VerifiedCode}, {"time", r.Time}, {"personType", r.PersonType},
		{"liveImageBase64", r.Picture},
	}, `{"cmd": "verifiedRecordU", "data": [{`, `}]}`
	if stranger {
		begin = `{"cmd": "strangerRecordU", "data": [{`
	}
	if d == HFSecurity {
		number := field{"RecordID", r.Number}
		begin, end = `{"operator": "RecPush", "info": {`, `}}`
		if stranger {
			number.key, begin = "SnapID", `{"operator": "StrSnapPush", "info": {`
		}
		fields = []field{
			number, {"customId", r.Num}, {"persionName", r.Name}, {"VerifyStatus", r.VerifiedCode}, {"time", r.Time},
			{"PersonType", r.PersonType}, {"pic", r.Picture},
		}
	}
	b = append(b, begin...)
	comma := ""
	for _, f := range fields {
		if f.value != nil {
			b = append(b, comma...)
			b = strconv.AppendQuote(b, f.key)
			b = append(append(b, ": "...), f.value...)
			comma = ", "
		}
	}
	return append(b, end...)
}

type field struct {
	key   string
	value json.RawMessage
}

// AppendHeartbeat appends the service's answer to a heartbeat to b.
func AppendHeartbeat(b []byte, now time.Time) []byte {
	return fmt.Appendf(b, `{"cmd": "heartD", "time": "%s"}`, now.Format(timeLayout))
}

// appendPushAck appends the acknowledgement of a record, whose number is written as a
// number if it is one.
func appendPushAck(b []byte, r Report, number json.RawMessage) []byte {
	kind, s := 2, text(number)
	if r.Kind == Stranger {
		kind = 1
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		number = strconv.AppendInt(nil, n, 10)
	}
	id := r.messageID
	if len(id) == 0 {
		id = quote("PushAck-" + s)
	}
	return fmt.Appendf(b, `{"operator": "PushAck", "messageId": %s, "info": {"PushAckType": %d, "SnapOrRecordID": %s}}`, id, kind, number)
}

// parsePushAck returns the number of the record that is acknowledged.
func parsePushAck(r Report) (number string, stranger bool, err error) {
	var info struct{ PushAckType, SnapOrRecordID json.RawMessage }
	if err := json.Unmarshal(r.data, &info); err != nil {
		return "", false, fmt.Errorf("PushAck: %w", err)
	}
	if info.SnapOrRecordID == nil {
		return "", false, errors.New("PushAck without SnapOrRecordID")
	}
	return text(info.SnapOrRecordID), text(info.PushAckType) == "1", nil
}
