package transport

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	metaDir     = ".pixferry"
	contentExt  = ".part"
	journalExt  = ".blocks"
	maxIdle     = 1024 // partial images that wait for their senders; the oldest gives way
	expireEvery = time.Minute
)

func contentFile(token string) string { return metaDir + "/" + token + contentExt }
func journalFile(token string) string { return metaDir + "/" + token + journalExt }

// An openDir is the directory of a DirStore while that is in use.
type openDir struct {
	disk     disk
	lock     *os.File
	locked   os.FileInfo // of lock
	lockPath string      // absolute
	existing Existing
	path     func(*Image) string
	expire   time.Duration
	now      func() time.Time

	log      *receiptLog
	dirs     group[string]   // syncs directories
	naming   sync.Mutex      // held from the look for a free name until it is taken; before mu
	reserved map[string]bool // by naming: final names that pending images go to

	using sync.RWMutex // held for reading by calls that run
	ended error        // what calls get once it is closed; by using

	mu       sync.Mutex
	receipts receipts
	pending  map[ID]*placing          // on their way to their final names
	durable  map[string]bool          // directories that are safe in their parents, those too
	changes  int                      // counts directories that are made, or were taken away
	idle     map[journalKey]idleImage // by resume key: wait for their senders
	left     []string                 // tokens of stored images whose partial files could not be removed
	expired  time.Time                // when idle was last searched for stale ones, and left tried again
}

// An idleImage is a partial image without a lease.
type idleImage struct {
	keys  journalKeys
	token string
	used  time.Time
	worth int64 // size of its journal: the more blocks the more
	sound bool  // its journal was written, or compared, since the directory was opened
}

// openDir opens the directory, takes its lock and finishes what a crash left.
func (s *DirStore) openDir() (_ *openDir, err error) {
	if s.Dir == "" {
		return nil, configError("no directory: set DirStore.Dir to the one that is to hold the images")
	}
	if s.Existing > Refuse {
		return nil, configError("DirStore.Existing is %d: set it to KeepBoth, Replace or Refuse", s.Existing)
	}
	if err := os.MkdirAll(s.Dir, 0o755); errors.Is(err, syscall.ENOTDIR) {
		return nil, configError("%w: set DirStore.Dir to a directory", err)
	} else if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(s.Dir)
	if err != nil {
		return nil, err
	}
	d := &openDir{
		disk:     disk{root: root, noSync: s.NoSync, step: s.step},
		existing: s.Existing, path: s.Path, expire: cmp.Or(s.Expire, defaultExpire), now: s.now,
		receipts: newReceipts(s.MaxReceipts),
		pending:  make(map[ID]*placing), durable: make(map[string]bool), reserved: make(map[string]bool), idle: make(map[journalKey]idleImage),
	}
	defer func() {
		if err != nil {
			_ = d.close(err)
		}
	}()
	if d.now == nil {
		d.now = time.Now
	}
	d.dirs.run = d.syncDirs
	if err := root.MkdirAll(metaDir, 0o755); err != nil {
		return nil, err
	}
	if d.lock, err = lockFile(root, metaDir+"/lock"); err != nil {
		return nil, err
	}
	if d.locked, err = d.lock.Stat(); err != nil {
		return nil, err
	}
	if d.lockPath, err = filepath.Abs(filepath.Join(s.Dir, metaDir, "lock")); err != nil {
		return nil, err
	}
	return d, d.recover()
}

// syncDirs is what dirs runs. A directory that somebody has taken away was there with the image in it, which is theirs now.
func (d *openDir) syncDirs(names []string) error {
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		err := d.disk.syncDir(name)
		if errors.Is(err, fs.ErrNotExist) && name != "." && !d.gone() {
			d.mu.Lock()
			d.changes++
			delete(d.durable, name)
			d.mu.Unlock()
		} else if err != nil {
			return err
		}
	}
	return nil
}

// enter makes close wait until leave.
func (d *openDir) enter() error {
	d.using.RLock()
	if d.ended != nil {
		defer d.using.RUnlock()
		return d.ended
	}
	return nil
}

// gone reports whether somebody has removed the directory, or put another one in its
// place, since it was opened. Windows lets nobody.
func (d *openDir) gone() bool {
	if runtime.GOOS == "windows" {
		return false
	}
	now, err := os.Stat(d.lockPath)
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || err == nil && !os.SameFile(d.locked, now)
}

func (d *openDir) leave() { d.using.RUnlock() }

// close waits for the calls that run; later ones get the reason. Their leases must
// not touch what the next DirStore finds in the directory.
func (d *openDir) close(reason error) error {
	d.using.Lock()
	defer d.using.Unlock()
	d.ended = reason
	var err error
	if d.log != nil {
		err = d.log.close()
	}
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return errors.Join(err, d.disk.root.Close())
}

// recover reads the receipts, finishes intents and finds the partial images.
func (d *openDir) recover() error {
	entries, err := d.disk.list(metaDir)
	if err != nil {
		return err
	}
	content := make(map[string]bool)
	for _, e := range entries {
		if token, ok := strings.CutSuffix(e.Name(), contentExt); ok {
			content[token] = true
		}
	}
	d.log, err = openReceiptLog(&d.disk, func(payload []byte) error {
		in, void, err := parseLog(payload)
		if err != nil {
			return err
		}
		id := in.receipt.ID
		d.receipts.remove(id)
		delete(d.pending, id)
		switch {
		case void:
		case in.token != "" && content[in.token]:
			d.pending[id] = &placing{intent: in, logged: true, recorded: true}
		default:
			d.receipts.add(in.receipt) // its partial file was removed after all else
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.log.live = d.live
	for id, pl := range d.pending {
		delete(content, pl.token)
		_, _, _ = d.receipt(id) // what fails stays pending: the next call tries again
	}
	return d.collect(entries, content)
}

// live returns what a compacted log holds.
func (d *openDir) live() (payloads [][]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.receipts.purge()
	for _, id := range d.receipts.order {
		payloads = append(payloads, (&intent{receipt: d.receipts.byID[id]}).payload())
	}
	for _, pl := range d.pending {
		if pl.logged {
			payloads = append(payloads, pl.payload())
		}
	}
	return payloads
}

// collect finds the partial images that wait for their senders, and removes what
// nobody can resume. content holds the tokens that belong to no intent.
func (d *openDir) collect(entries []os.DirEntry, content map[string]bool) error {
	for _, e := range entries {
		token, ok := strings.CutSuffix(e.Name(), journalExt)
		switch {
		case !ok:
			continue
		case !content[token]: // there is no content, or it is an intent's, which nobody resumes
			_ = d.disk.remove(journalFile(token))
			continue
		}
		f, err := d.disk.open(journalFile(token))
		if errors.Is(err, fs.ErrPermission) {
			continue // it was another user's, and nobody here can go on with it
		}
		if err != nil {
			return err
		}
		keys, err := readJournalKeys(f)
		info, serr := f.Stat()
		f.Close()
		if err == nil && serr == nil {
			delete(content, token)
			now := d.now() // with the monotonic clock: the system's may yet be set, by years
			used := now.Add(-max(0, now.Sub(info.ModTime())))
			d.park(idleImage{keys: keys, token: token, used: used, worth: info.Size()})
		}
	}
	for token := range content {
		_ = d.erase(token)
	}
	d.evict()
	return nil
}

// erase removes the files of a partial image, as far as that works: what stays
// is removed when the directory is next opened.
func (d *openDir) erase(token string) error {
	return errors.Join(d.disk.remove(contentFile(token)), d.disk.remove(journalFile(token)))
}

// park lets a partial image wait for its sender. Of two with one key that with
// more blocks stays.
func (d *openDir) park(image idleImage) {
	d.mu.Lock()
	other, twice := d.idle[image.keys.key]
	if twice && other.worth > image.worth {
		image, other = other, image
	}
	d.idle[image.keys.key] = image
	d.mu.Unlock()
	if twice {
		_ = d.erase(other.token)
	}
	d.evict()
}

// evict removes stale partial images, the oldest of too many, and what is left of stored ones.
func (d *openDir) evict() {
	d.mu.Lock()
	now := d.now()
	var gone []idleImage
	var left []string
	if now.Sub(d.expired) >= expireEvery {
		d.expired = now
		left, d.left = d.left, nil
		for _, image := range d.idle {
			if now.Sub(image.used) >= d.expire {
				gone = append(gone, image)
			}
		}
	}
	for _, image := range gone {
		delete(d.idle, image.keys.key)
	}
	full := len(d.idle) > maxIdle
	d.mu.Unlock()
	for _, image := range gone {
		_ = d.erase(image.token)
	}
	for _, token := range left {
		d.finished(token)
	}
	if full {
		d.eraseOldest()
	}
}

// finished removes the partial file of a stored image, later if somebody has it open: it would keep the space of an image
// that its owner removes.
func (d *openDir) finished(token string) {
	if d.disk.remove(contentFile(token)) == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.left) < maxPending { // others wait until the directory is next opened
		d.left = append(d.left, token)
	}
}

// eraseOldest gives back the space of the partial image that has waited longest,
// and reports whether there was one.
func (d *openDir) eraseOldest() bool {
	d.mu.Lock()
	var oldest idleImage
	for _, image := range d.idle {
		if oldest.token == "" || image.used.Before(oldest.used) {
			oldest = image
		}
	}
	delete(d.idle, oldest.keys.key)
	d.mu.Unlock()
	if oldest.token == "" {
		return false
	}
	_ = d.erase(oldest.token)
	return true
}
