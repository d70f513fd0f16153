package transport

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"runtime"
	"syscall"
)

// disk does the file operations of a DirStore. All is below root, which no name
// leaves whatever symbolic links there are.
type disk struct {
	root   *os.Root
	noSync bool
	// step is for tests: it sees each change before it is made and may refuse it.
	// n is the length of a write, of which it may allow a part only.
	step func(op, name string, n int) (allowed int, err error)
}

func (d *disk) before(op, name string) error {
	if d.step == nil {
		return nil
	}
	_, err := d.step(op, name, 0)
	return err
}

// create makes a new empty file, in the place of an old one.
func (d *disk) create(name string) (*diskFile, error) {
	return d.openFile("create", name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

func (d *disk) open(name string) (*diskFile, error) { return d.openFile("open", name, os.O_RDWR) }

func (d *disk) openFile(op, name string, flag int) (*diskFile, error) {
	if err := d.before(op, name); err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(name, flag, 0o644)
	if err != nil {
		return nil, err
	}
	return &diskFile{f, d, name}, nil
}

func (d *disk) link(from, to string) error {
	if err := d.before("link", to); err != nil {
		return err
	}
	return d.root.Link(from, to)
}

func (d *disk) rename(from, to string) error {
	if err := d.before("rename", to); err != nil {
		return err
	}
	return d.root.Rename(from, to)
}

// remove removes a file; one that is not there is no error.
func (d *disk) remove(name string) error {
	if err := d.before("remove", name); err != nil {
		return err
	}
	if err := d.root.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (d *disk) mkdirAll(name string) error {
	if err := d.before("mkdir", name); err != nil {
		return err
	}
	return d.root.MkdirAll(name, 0o755)
}

// syncDir makes the names in a directory durable, where the system can.
func (d *disk) syncDir(name string) error {
	if d.noSync || runtime.GOOS == "windows" {
		return nil
	}
	if err := d.before("syncdir", name); err != nil {
		return err
	}
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// list returns the names in a directory.
func (d *disk) list(name string) ([]fs.DirEntry, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}

// exists reports whether there is something under name; a symbolic link is.
func (d *disk) exists(name string) (bool, error) {
	_, err := d.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (d *disk) isDir(name string) bool {
	info, err := d.root.Lstat(name)
	return err == nil && info.IsDir()
}

// same reports whether two names are links of one file.
func (d *disk) same(a, b string) bool {
	ai, _ := d.root.Lstat(a)
	bi, _ := d.root.Lstat(b)
	return os.SameFile(ai, bi)
}

// isMeta reports whether a name leads to the store's own directory. File systems have aliases for it, such as
// PIXFER~1 (FAT, NTFS), or leave out characters that nobody sees (HFS+, ext4 with casefold).
func (d *disk) isMeta(name string) bool {
	ai, _ := d.root.Stat(name)
	bi, _ := d.root.Stat(metaDir)
	return os.SameFile(ai, bi)
}

// parents returns the directories that hold name, the innermost first.
func parents(name string) (dirs []string) {
	for dir := path.Dir(name); ; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
		if dir == "." {
			return dirs
		}
	}
}

// diskFile is an open file.
type diskFile struct {
	*os.File
	disk *disk
	name string
}

// WriteAt implements io.WriterAt.
func (f *diskFile) WriteAt(p []byte, off int64) (int, error) {
	if f.disk.step != nil {
		allowed, refused := f.disk.step("write", f.name, len(p))
		if refused != nil {
			n, err := f.File.WriteAt(p[:allowed], off)
			return n, errors.Join(refused, err)
		}
	}
	return f.File.WriteAt(p, off)
}

// Sync makes the content durable.
func (f *diskFile) Sync() error {
	if f.disk.noSync {
		return nil
	}
	if err := f.disk.before("sync", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

// appendAt writes p, durably.
func (f *diskFile) appendAt(p []byte, off int64) error {
	if _, err := f.WriteAt(p, off); err != nil {
		return err
	}
	return f.Sync()
}

// cut durably removes what is after size, if anything is.
func (f *diskFile) cut(size int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() <= size {
		return err
	}
	if err := f.disk.before("truncate", f.name); err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Sync()
}

// noSpace reports whether an error says that the disk, or the user's part of it,
// is full.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || platformNoSpace(err)
}

// diskError is the refusal that a failing disk leads to.
func diskError(err error) error {
	if r := (*RejectedError)(nil); err == nil || errors.As(err, &r) {
		return err
	}
	failure := storeFailure(err)
	if noSpace(err) {
		failure.Text = "the receiver's disk is full: free space on it, or give the receiver a directory on another disk, and send again"
	}
	return failure
}
