package transport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"
)

// Existing says what happens to an image whose name is taken.
type Existing uint8

const (
	KeepBoth Existing = iota // store it beside the old one, as "name (1).jpg"
	Replace                  // replace the old one, atomically
	Refuse                   // refuse it with ReasonExists
)

const defaultExpire = 7 * 24 * time.Hour

// A DirStore is a Store that keeps images as files of a directory. Only Dir must be set. A file
// under its final name is always whole, verified and, without NoSync, safe on the disk. While the
// receipt of an ID is remembered its image is stored once, even if the program is killed or the
// power fails at any moment: what was under way then is finished when the DirStore is next used.
// Anybody may move or delete such a file: its receipt stays. Only if the program dies just after
// the file has appeared can it appear once more.
//
// Its own files are in Dir/.pixferry: the receipts, and partial images, which survive a kill too.
// No name leads out of Dir.
//
// A DirStore is safe for concurrent use, and must not be changed or copied after its first use.
// Refusals are *RejectedError: ReasonDisk (retryable) when the disk is full or fails, ReasonName
// and ReasonExists.
type DirStore struct {
	// Dir is the directory. It is made if it is missing, also if somebody removes it later. Only
	// one DirStore at a time can use it: on most systems a second one, here or in another
	// process, gets an error.
	Dir string
	// Existing says what happens to an image whose name is taken; the zero value keeps both.
	Existing Existing
	// Path returns where an image goes: a slash-separated path below Dir, whose directories are
	// made. Nil means the image's Name. It is called at the offer, if that has a name, to refuse
	// the image early, and again for the whole image, by several goroutines at once. A path that
	// cannot be used, or a panic, refuses the image with ReasonName.
	Path func(img *Image) string
	// Expire is how long a partial image waits for its sender; 0: 7 days. At most 1,024 wait; the
	// oldest is removed first, also when the disk is full.
	Expire time.Duration
	// MaxReceipts is how many receipts are remembered, the latest ones; 0: 65,536. Each takes
	// about 250 bytes of memory.
	MaxReceipts int
	// NoSync leaves it to the system when bytes go to the disk. Small images are then two or
	// three times faster on a fast disk, and more on a slow one. A killed program loses nothing,
	// but a power failure may destroy images of the last seconds for which the senders have
	// receipts.
	NoSync bool

	mu     sync.Mutex
	opened *openDir
	closed bool
	worked bool // it was open once: what fails later is no mistake of the program's

	// For tests.
	step func(op, name string, n int) (allowed int, err error)
	now  func() time.Time
}

var _ Store = (*DirStore)(nil)

var errLocked = errors.New("another DirStore uses the directory, in this or in another process: give each its own, or stop the other one")

var errStoreClosed = fmt.Errorf("%w (%w)", later(ReasonGoingAway, "the receiver has closed its DirStore: send again when its program runs again"), fs.ErrClosed)

var errDirGone = later(ReasonDisk, "the receiver's directory was removed or replaced while the image was on its way: send again, it has been made anew")

// open returns the directory, which the first call opens and recovers, as does one
// after the directory was removed, and makes Close wait until its leave.
func (s *DirStore) open() (*openDir, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errStoreClosed
	}
	if s.opened != nil && s.opened.gone() {
		_ = s.opened.close(errDirGone) // whatever was in it is lost
		s.opened = nil
	}
	if s.opened == nil {
		d, err := s.openDir()
		if err != nil {
			err = fmt.Errorf("DirStore %q: %w", s.Dir, err)
			if s.worked {
				err = storeFailure(err)
			}
			return nil, err
		}
		s.opened, s.worked = d, true
	}
	return s.opened, s.opened.enter()
}

// Open implements [Store]. A partial image that was there when the directory was opened is read
// once and compared with its digests, until ctx ends.
func (s *DirStore) Open(ctx context.Context, o PartialOffer) (Partial, error) {
	d, err := s.open()
	if err != nil {
		return nil, err
	}
	defer d.leave()
	p, err := d.lease(ctx, o)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Receipt implements [Store]. If an earlier Commit could not finish, because the disk was full
// for example, it tries again.
func (s *DirStore) Receipt(_ context.Context, id ID) (Receipt, bool, error) {
	d, err := s.open()
	if err != nil {
		return Receipt{}, false, err
	}
	defer d.leave()
	return d.receipt(id)
}

// Forget implements [Store].
func (s *DirStore) Forget(instance, below uint64) {
	if d, err := s.open(); err == nil {
		defer d.leave()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.receipts.forget(instance, below)
	}
}

// Close releases the directory, so that another DirStore may use it. It waits for running calls,
// such as a Commit, but not for images on their way in: those are refused with ReasonGoingAway
// (retryable) when they continue, and stay for a resume. So call it after Shutdown, which lets
// them end. Exiting without Close loses nothing.
func (s *DirStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.opened == nil {
		return nil
	}
	d := s.opened
	s.opened = nil
	return d.close(errStoreClosed)
}
