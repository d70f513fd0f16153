package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// A journal remembers which deliveries are unfinished, so that sending the
// same file again to the same receiver goes on under the same ID. It is a file
// of JSON lines; the last line about a file counts. Lines are appended, until so many
// have come together that the next program rewrites it.
type journal struct {
	mu   sync.Mutex
	path string
	open map[journalKey]journalEntry
}

type journalKey struct{ Receiver, Path string }

type journalEntry struct {
	Receiver string       `json:"receiver"`
	Path     string       `json:"path"`
	Size     int64        `json:"size"`
	ModTime  time.Time    `json:"mtime"`
	ID       transport.ID `json:"id"`
	Done     bool         `json:"done,omitempty"`
}

// compactAfter is how many lines a journal may have before it is rewritten.
const compactAfter = 10_000

// openJournal reads the journal; a missing one is empty. A line that a crash
// has torn is ignored.
func openJournal(path string) (*journal, error) {
	if path == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("no place for the journal, name one with -journal FILE: %w", err)
		}
		path = filepath.Join(cache, "pixferry", "journal.jsonl")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("the journal, name another place with -journal FILE: %w", err)
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("the journal %s is not a regular file", path)
	}
	j := &journal{path: path, open: make(map[journalKey]journalEntry)}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	var content []byte
	if err == nil {
		defer f.Close()
		content, err = io.ReadAll(f)
	}
	if err != nil {
		return nil, fmt.Errorf("the journal, name another one with -journal FILE: %w", err)
	}
	lines := 0
	for line := range bytes.Lines(content) {
		lines++
		var e journalEntry
		if json.Unmarshal(line, &e) == nil {
			j.note(e)
		}
	}
	if lines > compactAfter {
		var late io.Reader = f
		if runtime.GOOS == "windows" { // where no file is replaced that is open
			f.Close()
			late = strings.NewReader("")
		}
		_ = j.compact(late) // if not, it stays as it is
	}
	return j, nil
}

func (j *journal) note(e journalEntry) {
	key := journalKey{e.Receiver, e.Path}
	if e.Done {
		delete(j.open, key)
	} else {
		j.open[key] = e
	}
}

// begin returns the ID under which to send the file: that of an unfinished
// delivery of the same content, else a new one, remembered before a byte leaves.
// The ID is good although the journal could not be written. What is no regular
// file, or missing, is not remembered.
func (j *journal) begin(receiver, file string) (transport.ID, error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return transport.NewID(), err
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return transport.NewID(), nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	e, found := j.open[journalKey{receiver, path}]
	if found && e.Size == info.Size() && e.ModTime.Equal(info.ModTime()) {
		return e.ID, nil
	}
	e = journalEntry{Receiver: receiver, Path: path, Size: info.Size(), ModTime: info.ModTime(), ID: transport.NewID()}
	return e.ID, j.append(e)
}

// done forgets a delivery that ended for good.
func (j *journal) done(receiver, file string) error {
	path, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	e, found := j.open[journalKey{receiver, path}]
	if !found {
		return nil
	}
	e.Done = true
	return j.append(e)
}

// append writes one line with one write, so that several programs may share a
// journal. It starts with a newline of its own in case the last one was torn.
func (j *journal) append(e journalEntry) error {
	j.note(e)
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return j.write(append(line, '\n'))
}

func (j *journal) write(lines []byte) error {
	f, err := os.OpenFile(j.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append([]byte("\n"), lines...))
	return errors.Join(err, f.Close())
}

// compact rewrites the journal, which was read from old, with what is unfinished. What other programs append to old
// meanwhile goes along.
func (j *journal) compact(old io.Reader) error {
	f, err := os.CreateTemp(filepath.Dir(j.path), ".journal-*")
	if err != nil {
		return err
	}
	encode := json.NewEncoder(f)
	for _, e := range j.open {
		err = errors.Join(err, encode.Encode(e))
	}
	_, late := io.Copy(f, old)
	if err = errors.Join(err, late, f.Close()); err == nil {
		err = os.Rename(f.Name(), j.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	lines, err := io.ReadAll(old) // of those who had opened it before it was replaced
	if err != nil || len(lines) == 0 {
		return err
	}
	return j.write(lines)
}
