package transport

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"

	"github.com/pixferry/pixferry/chunk"
)

// A dirPartial is a leased partial image of a DirStore.
type dirPartial struct {
	dir     *openDir
	token   string
	file    *diskFile
	journal *journal    // nil until the first Checkpoint
	keys    journalKeys // zero: not resumable
	held    []chunk.Block
	blocks  int   // recorded in the journal
	failed  error // why content or journal cannot be relied on
	ended   bool
}

var errEnded = fmt.Errorf("the lease of the partial image has ended: %w", fs.ErrClosed)

// lease opens the partial image that waits for the offer's sender, or a new one.
func (d *openDir) lease(ctx context.Context, o PartialOffer) (*dirPartial, error) {
	if o.Image.Name != "" {
		if _, err := d.target(&o.Image); err != nil {
			return nil, err
		}
	}
	d.evict()
	keys := makeJournalKeys(o)
	image, left := d.take(keys)
	if left {
		p, err := d.resume(ctx, o, image)
		if err == nil {
			return p, nil
		}
		if ctx.Err() != nil || passes(err) {
			d.park(image)
			return nil, cmp.Or(ctx.Err(), diskError(err))
		}
		left = d.erase(image.token) != nil // it cannot be read: start afresh
	}
	p := &dirPartial{dir: d, token: rand.Text(), keys: keys}
	err := d.withSpace(func() (err error) {
		p.file, err = d.disk.create(contentFile(p.token))
		return err
	})
	if err != nil {
		if left { // all of the directory is out of reach
			d.park(image)
		}
		return nil, diskError(err)
	}
	return p, nil
}

// passes reports whether an error says nothing about the file that it came from.
func passes(err error) bool {
	return noSpace(err) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// take removes a partial image from those that wait: of the same ID, whoever
// sends it now, or else with the same resume key.
func (d *openDir) take(k journalKeys) (idleImage, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	image, ok := d.idle[k.key]
	for _, other := range d.idle {
		if other.keys.id == k.id {
			image, ok = other, true
		}
	}
	delete(d.idle, image.keys.key)
	return image, ok
}

func (d *openDir) resume(ctx context.Context, o PartialOffer, image idleImage) (*dirPartial, error) {
	file, err := d.disk.open(contentFile(image.token))
	if err != nil {
		return nil, err
	}
	j, held, err := openJournal(ctx, &d.disk, journalFile(image.token), image.sound, file, o)
	if err != nil {
		file.Close()
		return nil, err
	}
	return &dirPartial{dir: d, token: image.token, file: file, journal: j, keys: image.keys, held: held, blocks: len(held)}, nil
}

// withSpace repeats an operation that finds the disk full as long as partial
// images without a lease can give way.
func (d *openDir) withSpace(operation func() error) error {
	for {
		err := operation()
		if !noSpace(err) || !d.eraseOldest() {
			return err
		}
	}
}

// ReadAt implements io.ReaderAt.
func (p *dirPartial) ReadAt(b []byte, off int64) (int, error) {
	if err := p.dir.enter(); err != nil {
		return 0, err
	}
	defer p.dir.leave()
	return p.file.ReadAt(b, off)
}

// WriteAt implements io.WriterAt.
func (p *dirPartial) WriteAt(b []byte, off int64) (n int, err error) {
	if err := p.enter(); err != nil {
		return 0, err
	}
	defer p.dir.leave()
	err = p.dir.withSpace(func() (err error) {
		n, err = p.file.WriteAt(b, off)
		return err
	})
	return n, p.fail(err)
}

// enter begins a call that changes something; p.dir.leave ends it.
func (p *dirPartial) enter() error {
	switch {
	case p.ended:
		return errEnded
	case p.failed != nil:
		return p.failed
	}
	return p.dir.enter()
}

// fail remembers that the disk failed: nothing is built on this content any more.
func (p *dirPartial) fail(err error) error {
	if err != nil {
		err = diskError(err)
		p.failed = err
	}
	return err
}

// Held implements [Partial].
func (p *dirPartial) Held() []chunk.Block { return slices.Clone(p.held) }

// Checkpoint implements [Partial].
func (p *dirPartial) Checkpoint(blocks []chunk.Block) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.dir.leave()
	if p.keys == (journalKeys{}) || len(blocks) == 0 {
		return nil
	}
	if p.journal == nil {
		err := p.dir.withSpace(func() (err error) {
			p.journal, err = createJournal(&p.dir.disk, journalFile(p.token), p.keys)
			return err
		})
		if err != nil {
			return p.fail(err)
		}
	}
	p.blocks += len(blocks)
	return p.fail(p.dir.withSpace(func() error { return p.journal.blocks(blocks) }))
}

// Drop implements [Partial].
func (p *dirPartial) Drop(indices []int64) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.dir.leave()
	if p.journal == nil || len(indices) == 0 {
		return nil
	}
	p.held = slices.DeleteFunc(p.held, func(b chunk.Block) bool { return slices.Contains(indices, b.Index) })
	p.blocks -= len(indices)
	return p.fail(p.journal.drop(indices))
}

// Keep implements [Partial]. What cannot be resumed is discarded.
func (p *dirPartial) Keep() error {
	if p.ended {
		return nil
	}
	if p.failed != nil || p.blocks <= 0 {
		return p.Discard()
	}
	p.end()
	p.dir.park(idleImage{keys: p.keys, token: p.token, used: p.dir.now(), worth: p.journal.end, sound: true})
	return nil
}

// Discard implements [Partial].
func (p *dirPartial) Discard() error {
	if p.ended {
		return nil
	}
	p.end()
	return p.dir.erase(p.token)
}

// end gives up the lease.
func (p *dirPartial) end() {
	p.ended = true
	p.file.Close()
	if p.journal != nil {
		p.journal.file.Close()
	}
}
