package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/pixferry/pixferry/transport"
)

// maxDone is how many records are remembered that the callback has taken.
const maxDone = 65536

// An outbox keeps what is to be posted, a file for each record, until the callback has
// taken it: in the order of arrival for each terminal, side by side for several.
//
//	OUTBOX/client-id                        what the broker knows this bridge by
//	OUTBOX/lock                             held while a bridge runs
//	OUTBOX/done                             IDs of records that were taken, 32 digits a line
//	OUTBOX/SEQUENCE-LANE-ID.json            what will be posted; LANE stands for the terminal
//	OUTBOX/SEQUENCE-LANE-ID.bad             what was torn by a failing disk
type outbox struct {
	dir   string
	limit int64
	log   *slog.Logger
	post  func(ctx context.Context, body []byte) error // one attempt; nil: it was taken
	lock  *os.File
	done  *os.File

	ctx     context.Context // of posting
	stop    context.CancelFunc
	again   context.Context // of trying again; ends before
	enough  context.CancelFunc
	working sync.WaitGroup

	troubles atomic.Int64 // records that could not be read, or were torn

	mu      sync.Mutex
	closed  bool
	seq     uint64
	bytes   int64
	lanes   map[string][]entry    // what waits, in order; a lane that is worked on is there, even empty
	waiting map[transport.ID]bool // and what of it is known
	taken   map[transport.ID]bool // the latest that were taken
	lines   int                   // in the file done, about
	order   []transport.ID        // of taken, the oldest first
}

// An entry is a record that waits.
type entry struct {
	name string
	id   transport.ID
	size int64
}

// openOutbox reads what an earlier run has left behind.
func openOutbox(dir string, limit int64, log *slog.Logger, post func(context.Context, []byte) error) (*outbox, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil { // faces and names are for nobody else
		return nil, err
	}
	o := &outbox{
		dir: dir, limit: limit, log: log, post: post,
		lanes: make(map[string][]entry), waiting: make(map[transport.ID]bool), taken: make(map[transport.ID]bool),
	}
	o.ctx, o.stop = context.WithCancel(context.Background())
	o.again, o.enough = context.WithCancel(o.ctx)
	var err error
	if o.lock, err = lockFile(filepath.Join(dir, "lock")); err != nil {
		return nil, fmt.Errorf("the outbox %s is used by another bridge: give each its own (%w)", dir, err)
	}
	if err := errors.Join(o.readDone(), o.readEntries()); err != nil {
		o.lock.Close()
		return nil, err
	}
	return o, nil
}

func (o *outbox) readDone() error {
	b, err := os.ReadFile(filepath.Join(o.dir, "done"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range bytes.Lines(b) {
		if id, err := transport.ParseID(strings.TrimSuffix(string(line), "\n")); err == nil { // a torn one is forgotten
			o.remember(id)
		}
	}
	if err = o.compact(); err == nil {
		return nil
	}
	o.log.Warn("the list of records that were taken cannot be shortened: it grows on", "err", err)
	o.lines = len(o.order)
	if o.done, err = o.openDone(); err == nil {
		_, _ = fmt.Fprintln(o.done) // ends a torn line
	}
	return err
}

func (o *outbox) openDone() (*os.File, error) {
	return os.OpenFile(filepath.Join(o.dir, "done"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
}

// compact writes the file anew, which only grows otherwise. If it fails, the old one stays.
func (o *outbox) compact() error {
	var b bytes.Buffer
	for _, id := range o.order {
		fmt.Fprintf(&b, "%v\n", id)
	}
	if err := o.write("done", b.Bytes()); err != nil {
		return err
	}
	f, err := o.openDone()
	if err != nil {
		return err
	}
	if o.done != nil {
		o.done.Close()
	}
	o.done, o.lines = f, len(o.order)
	return nil
}

// remember notes that a record was taken.
func (o *outbox) remember(id transport.ID) {
	if o.taken[id] {
		return
	}
	o.taken[id] = true
	o.order = append(o.order, id)
	if len(o.order) > maxDone {
		delete(o.taken, o.order[0])
		o.order = o.order[1:]
	}
}

func (o *outbox) readEntries() error {
	files, err := os.ReadDir(o.dir) // sorted by name, which is by sequence
	if err != nil {
		return err
	}
	for _, f := range files {
		name := f.Name()
		if strings.HasSuffix(name, ".json.new") || name == "done.new" || name == "client-id.new" {
			_ = os.Remove(filepath.Join(o.dir, name)) // it was being written
			continue
		}
		parts := strings.Split(strings.TrimSuffix(name, ".json"), "-")
		if len(parts) != 3 || !strings.HasSuffix(name, ".json") || !f.Type().IsRegular() {
			continue
		}
		seq, err1 := strconv.ParseUint(parts[0], 10, 64)
		id, err2 := transport.ParseID(parts[2])
		info, err3 := f.Info()
		if err := cmp.Or(err1, err2, err3); err != nil {
			o.log.Warn("a strange file in the outbox", "name", name, "err", err)
			continue
		}
		o.seq = max(o.seq, seq)
		if o.taken[id] { // and the bridge was killed before it could remove the file
			_ = os.Remove(filepath.Join(o.dir, name))
			continue
		}
		o.enter(parts[1], entry{name, id, info.Size()})
	}
	return nil
}

func (o *outbox) enter(lane string, e entry) {
	o.lanes[lane] = append(o.lanes[lane], e)
	o.waiting[e.id] = true
	o.bytes += e.size
}

// start begins to post what waits.
func (o *outbox) start() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for lane := range o.lanes {
		o.working.Go(func() { o.work(lane) })
	}
}

// add keeps a record. When it returns, the record is on the disk, unless it is not new:
// one that waits or was taken already. If there is no room, trying again may help.
func (o *outbox) add(terminal string, id transport.ID, body []byte) (isNew bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	size := int64(len(body))
	switch {
	case o.waiting[id] || o.taken[id]:
		return false, nil
	case o.closed:
		return false, &transport.RejectedError{Reason: transport.ReasonGoingAway, Retryable: true, Text: "the bridge ends"}
	case o.bytes+size > o.limit && len(o.waiting) > 0: // else there would never be room
		return false, &transport.RejectedError{Reason: transport.ReasonDisk, Retryable: true,
			Text: fmt.Sprintf("the outbox is full (%d bytes): see why the callback takes nothing, or raise -outbox-limit", o.bytes)}
	}
	o.seq++
	lane := laneOf(terminal)
	e := entry{fmt.Sprintf("%020d-%s-%v.json", o.seq, lane, id), id, size}
	if err := o.write(e.name, body); err != nil {
		return false, &transport.RejectedError{Reason: transport.ReasonDisk, Retryable: true, Text: err.Error()}
	}
	_, busy := o.lanes[lane]
	o.enter(lane, e)
	if !busy {
		o.working.Go(func() { o.work(lane) })
	}
	return true, nil
}

// laneOf returns what stands for a terminal in file names. Two that get the same one wait
// for one another, and that is all.
func laneOf(terminal string) string {
	h := fnv.New64a()
	h.Write([]byte(terminal))
	return hex.EncodeToString(h.Sum(nil))
}

// write makes a file in one step that a power failure does not undo.
func (o *outbox) write(name string, content []byte) error {
	path := filepath.Join(o.dir, name)
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	return syncDir(o.dir)
}

// work posts what waits in a lane, until nothing does.
func (o *outbox) work(lane string) {
	for {
		o.mu.Lock()
		if len(o.lanes[lane]) == 0 {
			delete(o.lanes, lane)
		}
		if len(o.lanes[lane]) == 0 || o.closed {
			o.mu.Unlock()
			return
		}
		e := o.lanes[lane][0]
		o.mu.Unlock()

		err := transport.Retry(o.again, &transport.RetryPolicy{MaxAttempts: -1}, func(context.Context) error {
			return o.try(o.ctx, e)
		})
		switch {
		case errors.Is(err, errTorn):
			o.setAside(lane, e)
			continue
		case errors.Is(err, fs.ErrNotExist):
			o.log.Warn("somebody has removed a record from the outbox", "name", e.name)
		case err != nil:
			return // the bridge ends; the next one goes on with it
		}
		o.finish(lane, e)
	}
}

// errTorn is the error of a record that a failing disk has damaged.
var errTorn = transport.Reject("no JSON")

// try posts a record once. Whatever goes wrong is worth another try, unless the record is
// gone or torn.
func (o *outbox) try(ctx context.Context, e entry) error {
	body, err := os.ReadFile(filepath.Join(o.dir, e.name))
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch {
	case err != nil:
		o.troubles.Add(1)
		o.log.Warn("a record cannot be read, and holds up its terminal", "err", err)
	case !json.Valid(body):
		return errTorn
	default:
		err = o.post(ctx, body)
	}
	if err != nil {
		return errors.New(err.Error()) // not one that transport.Retryable knows, such as a timeout
	}
	return nil
}

// finish forgets a record that was taken.
func (o *outbox) finish(lane string, e entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.remember(e.id)
	_, err := fmt.Fprintf(o.done, "%v\n", e.id)
	if o.lines++; o.lines > 2*maxDone {
		err = errors.Join(err, o.compact())
	}
	if err != nil {
		o.log.Warn("a record may be posted twice", "id", e.id, "err", err)
	}
	if err := os.Remove(filepath.Join(o.dir, e.name)); err != nil {
		o.log.Warn("a record stays in the outbox", "err", err)
	}
	o.leave(lane, e)
}

// setAside keeps a torn record for people. It is not remembered as one that was taken: the
// terminal may report it again.
func (o *outbox) setAside(lane string, e entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.troubles.Add(1)
	bad := strings.TrimSuffix(e.name, ".json") + ".bad"
	err := os.Rename(filepath.Join(o.dir, e.name), filepath.Join(o.dir, bad))
	o.log.Warn("a record is torn and was set aside", "name", bad, "err", err)
	o.leave(lane, e)
}

// leave forgets the first entry of a lane.
func (o *outbox) leave(lane string, e entry) {
	delete(o.waiting, e.id)
	o.lanes[lane] = slices.Delete(o.lanes[lane], 0, 1)
	o.bytes -= e.size
}

// state tells how much waits.
func (o *outbox) state() (records int, bytes int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.waiting), o.bytes
}

// clientID returns the name that the broker is to know this outbox's bridge by.
func (o *outbox) clientID() (string, error) {
	b, err := os.ReadFile(filepath.Join(o.dir, "client-id"))
	if id := strings.TrimSpace(string(b)); err == nil && id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	id := "facebridge-" + rand.Text()[:12] // 23 bytes are what every broker takes
	return id, o.write("client-id", []byte(id+"\n"))
}

// close ends the posting: what is being posted has until ctx ends.
func (o *outbox) close(ctx context.Context) {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.enough()
	defer context.AfterFunc(ctx, o.stop)()
	o.working.Wait()
	o.stop()
	o.done.Close()
	o.lock.Close()
}
