package transport

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"
)

const (
	maxPath     = 4096 // bytes of a path below the directory
	maxFileName = 255
)

// target returns where an image is to go, or its refusal.
func (d *openDir) target(img *Image) (string, error) {
	name := img.Name
	if d.path != nil {
		var err error
		if name, err = d.ask(img); err != nil {
			return "", err
		}
		if !usable(name) {
			return "", pathError("returned %.100q: let it return a path below Dir, such as gate-7/cam.jpg", name)
		}
	}
	if first, _, deeper := strings.Cut(name, "/"); !usable(name) || deeper && d.disk.isMeta(first) {
		return "", nameError(name)
	}
	there, err := d.disk.exists(name)
	switch {
	case err == nil:
	case misnamed(err):
		return "", nameError(name)
	default:
		return "", diskError(err)
	}
	if there && (d.existing == Refuse || d.existing == Replace && d.disk.isDir(name)) {
		return "", existsError(name)
	}
	return name, nil
}

// misnamed reports whether an error is the fault of a name that was usable: a file is in its way, for example, the file
// system takes no such characters (FAT and NTFS no colon), or a symbolic link leads out, which os.Root says in its own words.
func misnamed(err error) bool {
	errno := syscall.Errno(0)
	if !errors.As(err, &errno) {
		return !errors.Is(err, fs.ErrClosed)
	}
	return errno == syscall.ENOTDIR || errno == syscall.ENAMETOOLONG || errno == syscall.ELOOP ||
		errno == syscall.EINVAL || errno == syscall.EILSEQ || // characters that this file system has no room for
		platformMisnamed(errno)
}

// usable reports whether a name is a path below the directory, and not in what the store keeps there.
func usable(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return len(name) <= maxPath && !strings.Contains(name, "\x00") && name != "." && path.Clean(name) == name && filepath.IsLocal(filepath.FromSlash(name)) &&
		!strings.EqualFold(strings.TrimRight(first, ". "), metaDir)
}

// ask asks the user's Path. The metadata that may make it panic are the sender's.
func (d *openDir) ask(img *Image) (name string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = pathError("panicked: %v", p)
		}
	}()
	return filepath.ToSlash(d.path(img)), nil
}

// pathError is a mistake of DirStore.Path, of which the sender hears no more than that.
func pathError(format string, a ...any) error {
	refused := reject(ReasonName, "the receiver cannot tell where this image belongs")
	refused.cause = fmt.Errorf("DirStore.Path "+format, a...)
	return refused
}

func nameError(name string) error {
	return reject(ReasonName, "%.100q is no path that the receiver can use below its directory: choose another name", name)
}

func existsError(name string) error {
	return reject(ReasonExists, "the receiver has %.100q already and does not replace it: choose another name", name)
}

// choose reserves a number with which the name is free, for KeepBoth.
func (d *openDir) choose(pl *placing) error {
	if d.existing != KeepBoth {
		return nil
	}
	d.naming.Lock()
	defer d.naming.Unlock()
	delete(d.reserved, pl.reserved)
	number, err := freeNumber(func(n int) (bool, error) {
		name := numbered(pl.name, n)
		if d.reserved[name] {
			return true, nil
		}
		return d.disk.exists(name)
	})
	if err != nil {
		return diskError(err)
	}
	d.mu.Lock()
	pl.number, pl.recorded = number, false
	d.mu.Unlock()
	pl.reserved = pl.final()
	d.reserved[pl.reserved] = true
	return nil
}

// release gives up the name that choose has reserved.
func (d *openDir) release(pl *placing) {
	d.naming.Lock()
	defer d.naming.Unlock()
	delete(d.reserved, pl.reserved)
}

// final is the path of the final name.
func (in *intent) final() string { return numbered(in.name, in.number) }

// numbered returns the name of copy n of name, such as "a (1).jpg", of which no
// element gets longer than 255 bytes; copy 0 is name itself.
func numbered(name string, n int) string {
	if n == 0 {
		return name
	}
	dir, file := path.Split(name)
	ext := path.Ext(file)
	if len(ext) == len(file) || len(ext) > maxFileName/2 {
		ext = ""
	}
	stem, tail := strings.TrimSuffix(file, ext), fmt.Sprintf(" (%d)%s", n, ext)
	for len(stem)+len(tail) > maxFileName {
		_, size := utf8.DecodeLastRuneInString(stem)
		stem = stem[:len(stem)-size]
	}
	return dir + stem + tail
}

// freeNumber returns a number that is not used, after about 2 log n looks where
// the first n are used.
func freeNumber(used func(n int) (bool, error)) (int, error) {
	low, high := -1, 0 // low is used, or -1; high is free after the first loop
	for {
		is, err := used(high)
		if err != nil {
			return 0, err
		}
		if !is {
			break
		}
		low, high = high, 2*high+1
	}
	for high-low > 1 {
		middle := low + (high-low)/2
		is, err := used(middle)
		if err != nil {
			return 0, err
		}
		if is {
			low = middle
		} else {
			high = middle
		}
	}
	return high, nil
}
