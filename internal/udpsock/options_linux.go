package udpsock

import (
	"log/slog"

	"golang.org/x/sys/unix"
)

// setDontFragment forbids fragments without letting the kernel's idea of the path MTU
// refuse datagrams: the session probes for itself.
func setDontFragment(fd uintptr) bool {
	err4 := unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	err6 := unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
	return err4 == nil || err6 == nil
}

// tune tries to let buffers go beyond the system's limit, as a privileged program may, and
// tells what was got. Linux doubles what is asked and reports that.
func tune(fd uintptr, log *slog.Logger) {
	for _, b := range []struct {
		name, sysctl string
		get, force   int
	}{
		{"receive", "net.core.rmem_max", unix.SO_RCVBUF, unix.SO_RCVBUFFORCE},
		{"send", "net.core.wmem_max", unix.SO_SNDBUF, unix.SO_SNDBUFFORCE},
	} {
		size := func() int {
			n, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, b.get)
			return n / 2
		}
		if size() >= socketBuffer {
			continue
		}
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, b.force, socketBuffer)
		if got := size(); got < socketBuffer {
			log.Info("udp: the system grants a smaller socket buffer, which costs speed on fast networks; raise the limit with sysctl",
				"buffer", b.name, "bytes", got, "wanted", socketBuffer, "sysctl", b.sysctl)
		}
	}
}
