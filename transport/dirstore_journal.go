package transport

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"slices"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/framing"
)

// The journal of a partial image: which of its blocks are in the partial file.
// Payloads of its records (receiptlog_record.go):
//
//	'P'  resume key 32 | of the ID 32   first of all
//	'B'  index 8 | digest       a block is written
//	'D'  index 8                a block is forgotten
//
// It is never synced: it outlives a process in the page cache. Who has not written it itself, since
// the directory was opened, compares every block with its digest: a disk that was pulled, or a system
// that has gone down, may have kept the journal's last bytes and not the image's.
const (
	kindPartial = 'P'
	kindBlock   = 'B'
	kindDrop    = 'D'
)

// A journalKey stands for the resume key or the ID of an offer, with its size and
// algorithm.
type journalKey [sha256.Size]byte

// journalKeys are what a partial image is found again by: its ID, or else its
// resume key. Zero: not resumable. An image of one block is not: it is whole or
// has no block.
type journalKeys struct{ key, id journalKey }

func makeJournalKeys(o PartialOffer) (k journalKeys) {
	if o.Key == "" || o.Size >= 0 && o.Size <= chunk.BlockSize {
		return k
	}
	b := binary.LittleEndian.AppendUint64([]byte{o.Algorithm.ID}, uint64(o.Size))
	k.key = sha256.Sum256(append(b, o.Key...))
	k.id = sha256.Sum256(append(b, o.ID[:]...))
	return k
}

// A journal is open while its partial image is leased.
type journal struct {
	file *diskFile
	end  int64
	buf  []byte
}

// createJournal makes an empty journal.
func createJournal(d *disk, name string, k journalKeys) (*journal, error) {
	f, err := d.create(name)
	if err != nil {
		return nil, err
	}
	j := &journal{file: f}
	if err := j.append(slices.Concat([]byte{kindPartial}, k.key[:], k.id[:])); err != nil {
		f.Close()
		return nil, err
	}
	return j, nil
}

// append writes records at once.
func (j *journal) append(payloads ...[]byte) (err error) {
	j.buf = j.buf[:0]
	for _, p := range payloads {
		if j.buf, err = appendRecord(j.buf, p); err != nil {
			return err
		}
	}
	if _, err := j.file.WriteAt(j.buf, j.end); err != nil {
		return err
	}
	j.end += int64(len(j.buf))
	return nil
}

func (j *journal) blocks(blocks []chunk.Block) error {
	payloads := make([][]byte, 0, len(blocks))
	for _, b := range blocks {
		p := binary.LittleEndian.AppendUint64([]byte{kindBlock}, uint64(b.Index))
		payloads = append(payloads, appendDigest(p, b.Digest))
	}
	return j.append(payloads...)
}

func (j *journal) drop(indices []int64) error {
	payloads := make([][]byte, 0, len(indices))
	for _, i := range indices {
		payloads = append(payloads, binary.LittleEndian.AppendUint64([]byte{kindDrop}, uint64(i)))
	}
	return j.append(payloads...)
}

var errJournal = errors.New("not a journal of this version")

// readJournalKeys returns the keys of a journal.
func readJournalKeys(r io.Reader) (k journalKeys, err error) {
	first := errors.New("first record") // all that is needed
	_, err = readRecords(r, func(payload []byte) error {
		if payload[0] == kindPartial && copy(k.key[:], payload[1:]) == len(k.key) && copy(k.id[:], payload[1+len(k.key):]) == len(k.id) {
			return first
		}
		return errJournal
	})
	if errors.Is(err, first) {
		return k, nil
	}
	return journalKeys{}, errors.Join(errJournal, err)
}

// openJournal opens a journal and returns the blocks that content still holds,
// in order: all of a journal that is sound, else those that match their digests.
func openJournal(ctx context.Context, d *disk, name string, sound bool, content io.ReaderAt, o PartialOffer) (*journal, []chunk.Block, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, nil, err
	}
	j := &journal{file: f}
	held, err := j.load(ctx, sound, content, o)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return j, held, nil
}

func (j *journal) load(ctx context.Context, sound bool, content io.ReaderAt, o PartialOffer) ([]chunk.Block, error) {
	written := make(map[int64]chunk.Digest)
	end, err := readRecords(j.file, func(payload []byte) error { return replay(payload, written) })
	if err != nil {
		return nil, err
	}
	if err := j.file.cut(end); err != nil {
		return nil, err
	}
	j.end = end
	held := make([]chunk.Block, 0, len(written))
	for _, i := range slices.Sorted(maps.Keys(written)) {
		held = append(held, chunk.Block{Index: i, Digest: written[i]})
	}
	if sound {
		return held, nil
	}
	held, damaged, err := intact(ctx, held, content, o)
	if err != nil {
		return nil, err
	}
	if len(damaged) > 0 {
		err = j.drop(damaged)
	}
	return held, err
}

func replay(payload []byte, written map[int64]chunk.Digest) error {
	c := framing.NewCursor(payload)
	kind := c.Uint8()
	if kind == kindPartial {
		return nil
	}
	index := int64(c.Uint64())
	switch kind {
	case kindBlock:
		digest, err := consumeDigest(&c)
		if err != nil || digest.IsZero() || index < 0 {
			return errJournal
		}
		written[index] = digest
	case kindDrop:
		delete(written, index)
	}
	return c.Err()
}

// intact separates the blocks that match their digest from those that do not.
func intact(ctx context.Context, blocks []chunk.Block, content io.ReaderAt, o PartialOffer) (good []chunk.Block, damaged []int64, err error) {
	hasher := chunk.NewBlockHasher(o.Algorithm)
	for _, b := range blocks {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		if digest, err := hasher.Read(content, b.Index, o.Size); err == nil && digest == b.Digest {
			good = append(good, b)
		} else {
			damaged = append(damaged, b.Index)
		}
	}
	return good, damaged, nil
}
