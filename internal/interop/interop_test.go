// Package interop_test has pixferry talk with peers that were written in another
// language, from the text of the device protocols alone: with some that follow it,
// and with some that make the mistakes of the programs in the field.
package interop_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait; it is for machines that have much else to do.
const patience = 60 * time.Second

// scratch holds the program under test.
var scratch string

func TestMain(m *testing.M) {
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		_ = flag.Set("test.parallel", "6") // most of the time is spent waiting
	}
	os.Exit(func() int {
		var err error
		if scratch, err = os.MkdirTemp("", "interop"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(scratch)
		return m.Run()
	}())
}

// pixferryPath builds the program under test.
var pixferryPath = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "pixferry")
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	out, err := exec.Command("go", "build", "-o", path, "github.com/pixferry/pixferry/examples/pixferry").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building pixferry: %w\n%s", err, out)
	}
	return path, nil
})

// pythonPath finds a Python that has paho, or else one that has not.
var pythonPath = sync.OnceValues(func() (path string, paho bool) {
	for _, name := range []string{"/usr/bin/python3", "python3", "python"} {
		p, err := exec.LookPath(name)
		if err != nil || exec.Command(p, "-c", "import sys; sys.exit(sys.version_info < (3, 9))").Run() != nil {
			continue
		}
		if path == "" {
			path = p
		}
		if exec.Command(p, "-c", "import paho.mqtt.client").Run() == nil {
			return p, true
		}
	}
	return path, false
})

// need skips a test if something is not installed; it fails if that is required.
func need(t *testing.T, what string, have bool) {
	t.Helper()
	if have {
		return
	}
	if strings.Contains(os.Getenv("PIXFERRY_REQUIRE"), what) {
		t.Fatalf("%s is required and not installed", what)
	}
	t.Skipf("%s is not installed", what)
}

func needPython(t *testing.T) {
	t.Helper()
	path, _ := pythonPath()
	need(t, "python3", path != "")
}

func needPaho(t *testing.T) {
	t.Helper()
	needPython(t)
	_, paho := pythonPath()
	need(t, "paho", paho)
}

// long skips a test with -short.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("long")
	}
}

// attempts repeats what a loaded machine may spoil, such as datagrams in the
// buffers of a system that has no time to run their reader.
func attempts(t *testing.T, n int, f func() error) {
	t.Helper()
	for i := 1; ; i++ {
		err := f()
		if err == nil {
			return
		}
		if i == n {
			t.Fatal(err)
		}
		t.Logf("try %d: %v", i, err)
	}
}

func itoa(i int) string { return strconv.Itoa(i) }
