package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pixferry/pixferry/framing"
)

// The receipt log of a DirStore: who was promised what, and where it went.
// Payloads of its records (receiptlog_record.go):
//
//	'R'  ID 16 | level 1 | digest | bytes, resent, reused: varints |
//	     partial: length 1, bytes | number: varint | name: length 2, bytes
//	'V'  ID 16
//
// R is written before an image gets its final name: an intent as long as its
// partial file is there, then a receipt. V takes an intent back. A receipt
// has no partial and no name if it is compacted, or its partial file could not be removed. Of several records of an ID the last counts.
const (
	logFile    = metaDir + "/receipts"
	newLogFile = metaDir + "/receipts.new"

	kindReceipt = 'R'
	kindVoid    = 'V'
)

var (
	partialPrefix = framing.Prefix{Width: 1}
	namePrefix    = framing.Prefix{Width: 2}
)

// errLogTorn says that a record whose write failed may be in the log all the same.
var errLogTorn = errors.New("the receipt log is damaged until it can be written again")

// receiptLog appends records durably; those of concurrent callers share a sync.
type receiptLog struct {
	disk *disk
	live func() [][]byte // payloads that a compaction keeps
	sync group[logEntry]

	// Owned by the group's running call.
	file      *diskFile // nil: it could not be opened again
	end       int64     // of the last whole record
	records   int
	compactAt int
	torn      bool // what is after end could not be cut off
}

type logEntry struct {
	payload []byte
	written func() // called once it is durable, before another record is written
}

// openReceiptLog reads the log, cuts a torn tail and calls each with every payload.
func openReceiptLog(d *disk, each func(payload []byte) error) (*receiptLog, error) {
	f, err := d.open(logFile)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = d.create(logFile)
	}
	if err != nil {
		return nil, err
	}
	l := &receiptLog{disk: d, file: f}
	l.sync.run = l.write
	l.end, err = readRecords(f, func(payload []byte) error {
		l.records++
		return each(payload)
	})
	if err == nil {
		err = f.cut(l.end)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("receipt log %s: %w", logFile, err)
	}
	return l, nil
}

// append returns when the record is durable. After an error it is not in the
// log, unless the error is errLogTorn.
func (l *receiptLog) append(e logEntry) error { return l.sync.do(e) }

// write is the group's call.
func (l *receiptLog) write(entries []logEntry) error {
	if l.torn || l.records >= l.compactAt {
		if err := l.compact(); err != nil && l.torn {
			return err
		}
	}
	// The partial files that the records name must be found after a power cut, and a log that was just compacted.
	if err := l.disk.syncDir(metaDir); err != nil {
		return err
	}
	var buf []byte
	for _, e := range entries {
		var err error
		if buf, err = appendRecord(buf, e.payload); err != nil {
			return err
		}
	}
	if err := l.file.appendAt(buf, l.end); err != nil {
		if cut := l.file.cut(l.end); cut != nil {
			l.torn = true
			return fmt.Errorf("%w: %w", errLogTorn, err)
		}
		return err
	}
	l.end += int64(len(buf))
	l.records += len(entries)
	for _, e := range entries {
		e.written()
	}
	return nil
}

// compact writes a new log with what is live and puts it in the place of the old, which is not durable then.
func (l *receiptLog) compact() error {
	live := l.live()
	l.compactAt = 2*max(l.records, len(live)) + 1024 // also after a failure
	if !l.torn && len(live) >= l.records/2 {
		return nil
	}
	var buf []byte
	for _, payload := range live {
		var err error
		if buf, err = appendRecord(buf, payload); err != nil {
			return err
		}
	}
	f, err := l.disk.create(newLogFile)
	if err != nil {
		return err
	}
	err = f.appendAt(buf, 0)
	if err == nil {
		_ = l.closeFile() // FAT and exFAT on Windows replace no open file
		if err = l.disk.rename(newLogFile, logFile); err != nil {
			err = errors.Join(err, l.reopen())
		}
	}
	if err != nil {
		f.Close()
		_ = l.disk.remove(newLogFile)
		return err
	}
	f.name = logFile
	l.file, l.end, l.records, l.torn = f, int64(len(buf)), len(live), false
	l.compactAt = 2*l.records + 1024
	return nil // write syncs the directory
}

// reopen opens the log again that could not be replaced. If it cannot, nothing is appended until it has been.
func (l *receiptLog) reopen() error {
	f, err := l.disk.open(logFile)
	if err != nil {
		l.torn = true
		return err
	}
	l.file = f
	return nil
}

// close closes the file when no write runs.
func (l *receiptLog) close() error {
	l.sync.running.Lock()
	defer l.sync.running.Unlock()
	return l.closeFile()
}

func (l *receiptLog) closeFile() error {
	f := l.file
	if l.file = nil; f == nil {
		return nil
	}
	return f.Close()
}

// An intent is a whole image that is to get its final name.
type intent struct {
	receipt Receipt
	token   string // of its partial file
	name    string // wanted, slash-separated below the directory
	number  int    // 0, or that of the copy: numbered(name, number) is the final name
}

// An intent without token is a receipt.
func (in *intent) payload() []byte {
	b := append([]byte{kindReceipt}, in.receipt.ID[:]...)
	b = appendDigest(append(b, byte(in.receipt.Level)), in.receipt.Digest)
	for _, v := range [...]int64{in.receipt.Bytes, in.receipt.Resent, in.receipt.Reused} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	b = append(append(b, byte(len(in.token))), in.token...)
	b = binary.AppendUvarint(b, uint64(in.number))
	return append(binary.LittleEndian.AppendUint16(b, uint16(len(in.name))), in.name...)
}

func voidPayload(id ID) []byte { return append([]byte{kindVoid}, id[:]...) }

var errOtherVersion = errors.New("written by another version of this library: use that version, or move the directory " + metaDir + " away")

// parseLog returns the intent or receipt of a payload; void: only its ID counts.
func parseLog(payload []byte) (in intent, void bool, err error) {
	c := framing.NewCursor(payload)
	kind := c.Uint8()
	copy(in.receipt.ID[:], c.Bytes(len(ID{})))
	if kind == kindVoid && c.Err() == nil {
		return in, true, nil
	}
	in.receipt.Level = Level(c.Uint8())
	if in.receipt.Digest, err = consumeDigest(&c); err != nil {
		return in, false, errOtherVersion
	}
	in.receipt.Bytes, in.receipt.Resent, in.receipt.Reused = int64(c.Uvarint()), int64(c.Uvarint()), int64(c.Uvarint())
	in.token = string(c.Prefixed(partialPrefix))
	in.number = int(c.Uvarint())
	in.name = string(c.Prefixed(namePrefix))
	if kind != kindReceipt || c.Err() != nil || c.Len() > 0 {
		return in, false, errOtherVersion
	}
	return in, false, nil
}
