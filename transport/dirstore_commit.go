package transport

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"syscall"
)

// The commit of an image. After a crash at any step finish goes on where the
// intent is in the log, and otherwise the image was never promised.
//
//	1. sync the content                                    seal
//	2. write the intent to the receipt log, and sync it    record
//	3. link the content to its final name                  place
//	4. sync the directories of that name
//	5. remove the partial file, or log that there is nothing to finish
//
// An intent whose partial file is gone is a receipt.

// A placing is an intent that is to be finished. openDir.mu guards its fields
// against live; other than that the goroutine that has set busy owns it.
type placing struct {
	intent
	busy     bool
	logged   bool   // some intent of the image is in the log, or may be
	recorded bool   // that with the current number is
	placed   bool   // it has its final name
	reserved string // the final name that choose has taken; guarded by openDir.naming
}

// Commit implements [Partial]. A second one of an ID that is remembered stores
// nothing and returns no name.
func (p *dirPartial) Commit(ctx context.Context, img *Image, r Receipt) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := p.enter(); err != nil {
		return "", err
	}
	d := p.dir
	defer d.leave()
	name, err := d.target(img)
	if err != nil {
		return "", err
	}
	if err := p.seal(r.Bytes); err != nil {
		return "", err
	}
	pl, err := d.intend(intent{receipt: r, token: p.token, name: name})
	if errors.Is(err, errKnown) {
		return "", p.Discard()
	}
	if err != nil {
		return "", err
	}
	if err := d.finish(pl); err != nil {
		leased, err := d.withdraw(pl, err)
		switch {
		case !leased:
			p.end()
		case noSpace(withCause(err)): // the content is as good as before, but the disk may need its space
			p.failed = err
		}
		return "", err
	}
	p.end()
	return pl.final(), nil
}

// unsettled adds to a refusal what its sender has to know: under another ID the image would be stored twice.
func unsettled(err error) error {
	refused := (*RejectedError)(nil)
	if !errors.As(err, &refused) {
		return err
	}
	told := *refused
	told.Text = clip(told.Text + "; it may be stored later: send it again under the same ID only")
	return &told
}

// seal checks the size of the content and makes it durable.
func (p *dirPartial) seal(size int64) error {
	info, err := p.file.Stat()
	if err != nil {
		return p.fail(err)
	}
	if info.Size() < size {
		return incomplete(info.Size(), size)
	}
	if err := p.file.cut(size); err != nil {
		return p.fail(err)
	}
	return p.fail(p.file.Sync())
}

func incomplete(have, size int64) error {
	return later(ReasonIncomplete, "%d of %d bytes are there", have, size)
}

// receipt returns what is remembered of an ID. It first finishes an image whose
// Commit could not.
func (d *openDir) receipt(id ID) (Receipt, bool, error) {
	d.mu.Lock()
	r, ok := d.receipts.get(id)
	pl := d.pending[id]
	if ok || pl == nil || pl.busy {
		d.mu.Unlock()
		return r, ok, nil
	}
	pl.busy = true
	d.mu.Unlock()
	if err := d.finish(pl); err != nil {
		_, err = d.withdraw(pl, err)
		return Receipt{}, false, err
	}
	return pl.receipt, true, nil
}

var (
	errKnown   = errors.New("an image is stored under this ID")
	errPending = later(ReasonDisk, "the receiver's disk is slow or has failed: too many images wait for their places in its directory")
	errStoring = later(ReasonBusy, "the image is being stored: ask again under the same ID")
)

// maxPending bounds the images that are on their way to their names, or wait for a disk to work again.
const maxPending = 4096

// intend makes an image pending under a name that is free. No other image gets
// its ID then.
func (d *openDir) intend(in intent) (*placing, error) {
	id, pl := in.receipt.ID, &placing{intent: in, busy: true}
	d.mu.Lock()
	_, known := d.receipts.get(id)
	storing, full := d.pending[id] != nil, len(d.pending) >= maxPending
	if !known && !storing && !full {
		d.pending[id] = pl
	}
	d.mu.Unlock()
	switch {
	case known:
		return nil, errKnown
	case storing:
		return nil, errStoring
	case full:
		d.again()
		return nil, errPending
	}
	if err := d.choose(pl); err != nil {
		_, err = d.withdraw(pl, err)
		return nil, err
	}
	return pl, nil
}

// again finishes one of the images that wait, whose sender may never ask for it.
func (d *openDir) again() {
	d.mu.Lock()
	var id ID
	for other, pl := range d.pending {
		if id = other; !pl.busy {
			break
		}
	}
	d.mu.Unlock()
	_, _, _ = d.receipt(id)
}

// withdraw ends the work on an image that could not be finished. It reports whether the partial file is its lease's
// again, and returns the error with what its sender has to know: while an intent is in the log receipt tries again.
func (d *openDir) withdraw(pl *placing, err error) (leased bool, _ error) {
	d.mu.Lock()
	pl.busy = false
	pending := d.pending[pl.receipt.ID] == pl // otherwise void has taken it back
	leased = pending && !pl.logged
	if leased {
		delete(d.pending, pl.receipt.ID)
	}
	d.mu.Unlock()
	switch {
	case leased:
		d.release(pl)
	case pending:
		err = unsettled(err)
	}
	return leased, err
}

// finish brings a pending image to its end. It is repeated after a failure, and
// after a crash at any step.
func (d *openDir) finish(pl *placing) error {
	for !pl.placed {
		if err := d.record(pl); err != nil {
			return diskError(err)
		}
		// From here on the content may have a second name: nobody resumes it.
		if err := d.disk.remove(journalFile(pl.token)); err != nil {
			return diskError(err)
		}
		err := d.withSpace(func() error { return d.place(pl) })
		switch {
		case err == nil:
			pl.placed = true
		case errors.Is(err, fs.ErrExist) && d.existing == KeepBoth:
			if err := d.choose(pl); err != nil {
				return err
			}
		case errors.Is(err, fs.ErrExist):
			return d.void(pl, existsError(pl.name))
		case errors.Is(err, fs.ErrNotExist):
			return d.void(pl, diskError(err)) // somebody has removed the partial file
		case misnamed(err): // a file is in the way by now
			return d.void(pl, nameError(pl.name))
		case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EXDEV):
			return d.void(pl, diskError(err)) // which does not pass by itself
		default:
			return diskError(err)
		}
	}
	if err := d.syncName(pl.final()); err != nil {
		return diskError(err)
	}
	settled := func() {
		d.mu.Lock()
		d.receipts.add(pl.receipt)
		delete(d.pending, pl.receipt.ID)
		d.mu.Unlock()
	}
	if err := d.disk.remove(contentFile(pl.token)); err != nil {
		// On Windows whoever reads the image, by its name, may keep this from being removed. Should that last until the
		// directory is next opened, the log has to say that the image is stored, also when it is compacted next.
		stored := intent{receipt: pl.receipt}
		if err := d.log.append(logEntry{stored.payload(), settled}); err != nil {
			return diskError(err)
		}
		d.finished(pl.token)
	} else {
		settled()
	}
	d.release(pl)
	return nil
}

// syncName makes a name durable, and the directories on the way to it: those that are not known to be may have
// been made for another image just now, which is not so far.
func (d *openDir) syncName(name string) error {
	dirs := parents(name)
	d.mu.Lock()
	changes := d.changes
	d.mu.Unlock()
	for _, dir := range dirs {
		if err := d.dirs.do(dir); err != nil {
			return err
		}
		d.mu.Lock()
		durable := d.durable[dir]
		d.mu.Unlock()
		if durable {
			break
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changes != changes {
		return nil // one of them may be another one by now
	}
	if len(d.durable) > maxDurable {
		clear(d.durable)
	}
	for _, dir := range dirs {
		d.durable[dir] = true
	}
	return nil
}

// maxDurable bounds the directories that are known to be durable: others are synced once more.
const maxDurable = 1 << 12

// makeDir makes a directory, which is not durable then.
func (d *openDir) makeDir(dir string) error {
	d.mu.Lock()
	d.changes++
	for _, dir := range append(parents(dir), dir) {
		delete(d.durable, dir)
	}
	d.mu.Unlock()
	return d.disk.mkdirAll(dir)
}

// record writes the intent to the log, if it is not there.
func (d *openDir) record(pl *placing) error {
	if pl.recorded {
		return nil
	}
	logged := func() {
		d.mu.Lock()
		pl.logged = true
		d.mu.Unlock()
	}
	err := d.withSpace(func() error {
		err := d.log.append(logEntry{pl.payload(), logged})
		if errors.Is(err, errLogTorn) {
			logged()
		}
		return err
	})
	pl.recorded = err == nil
	return err
}

// void takes the intent back for the given reason, and discards the image.
func (d *openDir) void(pl *placing, reason error) error {
	err := d.log.append(logEntry{voidPayload(pl.receipt.ID), func() {
		d.mu.Lock()
		delete(d.pending, pl.receipt.ID)
		d.mu.Unlock()
	}})
	if err != nil {
		if errors.Is(err, errLogTorn) { // it may be in the log: should the image get its name after all, its intent must follow
			d.mu.Lock()
			pl.recorded = false
			d.mu.Unlock()
		}
		return diskError(err)
	}
	d.release(pl)
	_ = d.erase(pl.token)
	return reason
}

var errInTheWay = errors.New("a file is in the way of a directory")

// place gives the content its final name, and makes the directories for it. The
// error is ErrExist if the name is somebody else's, ErrNotExist if the content
// is gone, and errInTheWay if a file has the name of a directory on the way.
func (d *openDir) place(pl *placing) error {
	from, to := contentFile(pl.token), pl.final()
	err := d.put(from, to)
	if dir := path.Dir(to); errors.Is(err, fs.ErrNotExist) && dir != "." {
		switch err := d.makeDir(dir); {
		case errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENOTDIR):
			return errInTheWay // on Windows only this tells: ENOTDIR is ErrNotExist there
		case err != nil:
			return err
		}
		err = d.put(from, to)
	}
	return err
}

func (d *openDir) put(from, to string) error {
	if d.existing == Replace {
		err := d.disk.rename(from, to)
		if err != nil && d.disk.isDir(to) {
			return fs.ErrExist
		}
		return err
	}
	err := d.disk.link(from, to)
	switch {
	case err == nil || errors.Is(err, fs.ErrNotExist):
		return err
	case errors.Is(err, fs.ErrExist):
		if d.disk.same(from, to) {
			return nil
		}
		return err
	}
	// The file system has no links. Nobody else in this store takes the name
	// between the look and the rename.
	d.naming.Lock()
	defer d.naming.Unlock()
	if there, err := d.disk.exists(to); err != nil {
		return err
	} else if there {
		return fs.ErrExist
	}
	return d.disk.rename(from, to)
}
