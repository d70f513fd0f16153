package udpsock

import (
	"os"
	"testing"

	"golang.org/x/sys/windows"
)

// The errors of Windows' sockets are not those of package syscall that have the same names.
func TestErrorsOfWindows(t *testing.T) {
	for errno, is := range map[windows.Errno]func(error) bool{
		windows.WSAEMSGSIZE:      TooLarge,
		windows.WSAECONNRESET:    Refused,
		windows.WSAENETUNREACH:   Unroutable,
		windows.WSAEHOSTUNREACH:  Unroutable,
		windows.WSAEADDRNOTAVAIL: Unroutable,
		windows.WSAENETDOWN:      Unroutable,
	} {
		if !is(os.NewSyscallError("wsasendto", errno)) {
			t.Errorf("%d is not taken for what it is", errno)
		}
	}
}
