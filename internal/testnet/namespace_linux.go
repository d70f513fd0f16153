package testnet

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// Inside runs the test once more in a process that has a network namespace of its own, and reports whether this is that
// process: the other one has nothing else to do. The test is skipped if there is no ip command, or no namespace can be made.
func Inside(t *testing.T) bool {
	const inside = "PIXFERRY_TEST_NAMESPACE"
	if os.Getenv(inside) != "" {
		return true
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs iproute2:", err)
	}
	test := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	test.Env = append(os.Environ(), inside+"=1")
	test.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	switch out, err := test.CombinedOutput(); {
	case errors.As(err, new(*exec.ExitError)):
		t.Errorf("%s", out)
	case err != nil:
		t.Skip("no namespace can be made:", err)
	default:
		t.Logf("%s", out)
	}
	return false
}
