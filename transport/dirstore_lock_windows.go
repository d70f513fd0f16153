package transport

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

const (
	errorSharingViolation     = syscall.Errno(32)
	errorHandleDiskFull       = syscall.Errno(39)
	errorDiskFull             = syscall.Errno(112)
	errorInvalidName          = syscall.Errno(123) // characters, or the length of an element
	errorBadPathname          = syscall.Errno(161)
	errorFilenameExceedsRange = syscall.Errno(206)
	errorDirectory            = syscall.Errno(267) // a file is in the way
)

// lockFile opens the file for this process alone, which ends with it.
func lockFile(root *os.Root, name string) (*os.File, error) {
	path := filepath.Join(root.Name(), filepath.FromSlash(name))
	p, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	h, err := syscall.CreateFile(p, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if err == errorSharingViolation {
		return nil, errLocked
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(h), path), nil
}

func platformNoSpace(err error) bool {
	return errors.Is(err, errorHandleDiskFull) || errors.Is(err, errorDiskFull)
}

func platformMisnamed(err syscall.Errno) bool {
	return err == errorInvalidName || err == errorBadPathname || err == errorFilenameExceedsRange || err == errorDirectory
}
