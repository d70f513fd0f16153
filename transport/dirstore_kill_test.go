//go:build unix

package transport

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"

	"github.com/pixferry/pixferry/chunk"
	"golang.org/x/sync/errgroup"
)

const (
	killRounds   = 12
	killImages   = 40
	killDirEnv   = "PIXFERRY_TEST_KILL_DIR"
	killParallel = 3
)

var killSeed = flag.Uint64("killseed", 0, "seed of TestDirStoreKilled; 0: a new one")

// killImage is what the processes of TestDirStoreKilled store.
func killImage(i int) (id ID, name string, content []byte) {
	sizes := []int{0, 1, 100_000, chunk.BlockSize, 2*chunk.BlockSize + 77}
	return MakeID(7, uint64(i)), fmt.Sprintf("image-%d.jpg", i/2), picture(uint64(i), sizes[i%len(sizes)]) // names come twice
}

// TestDirStoreKilledChild is the program that TestDirStoreKilled kills. It prints
// a line at each step of the store, and the number of each image stored.
func TestDirStoreKilledChild(t *testing.T) {
	dir := os.Getenv(killDirEnv)
	if dir == "" {
		t.Skip("run by TestDirStoreKilled")
	}
	s := &DirStore{Dir: dir, step: func(op, name string, n int) (int, error) {
		fmt.Println("step")
		return 0, nil
	}}
	var next atomic.Int64
	var group errgroup.Group
	for range killParallel {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= killImages {
					return nil
				}
				id, name, content := killImage(i)
				_, ok, err := s.Receipt(t.Context(), id)
				if err == nil && !ok {
					_, _, err = deliver(s, id, name, content)
				}
				if err != nil {
					return err
				}
				fmt.Println("image", i)
			}
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// A real process is killed at random moments, again and again.
func TestDirStoreKilled(t *testing.T) {
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	random := rand.New(rand.NewPCG(seed, 0))
	dir, acked := t.TempDir(), make(map[int]bool)
	killed := 0
	for range killRounds {
		if !killedAfter(t, dir, random.IntN(120), acked) {
			break
		}
		killed++
		checkKilled(t, dir, acked)
		if t.Failed() {
			t.Fatalf("round %d: run again with -killseed=%d", killed, seed)
		}
	}
	if killed < 3 {
		t.Errorf("only %d processes were killed", killed)
	}
	s := newDirStore(t, &DirStore{Dir: dir})
	for i := range killImages {
		id, name, content := killImage(i)
		if _, ok, err := s.Receipt(t.Context(), id); err != nil {
			t.Fatal(err)
		} else if !ok {
			mustDeliver(t, s, id, name, content)
		}
		acked[i] = true
	}
	s.Close()
	checkKilled(t, dir, acked)
	if got := len(files(t, dir)); got != killImages {
		t.Errorf("%d images stored, want %d (-killseed=%d)", got, killImages, seed)
	}
}

// killedAfter starts a process, kills it after a number of lines, and reports
// whether it lived so long.
func killedAfter(t *testing.T, dir string, lines int, acked map[int]bool) bool {
	cmd := exec.Command(os.Args[0], "-test.run=^TestDirStoreKilledChild$")
	cmd.Env = append(os.Environ(), killDirEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	scanner := bufio.NewScanner(out)
	for seen := 0; scanner.Scan(); seen++ {
		if seen == lines {
			cmd.Process.Kill() // what it has printed meanwhile still counts
		}
		i := 0
		if _, err := fmt.Sscanf(scanner.Text(), "image %d", &i); err == nil {
			acked[i] = true
		} else if bytes.Contains(scanner.Bytes(), []byte("FAIL")) {
			t.Errorf("the process failed: %s", scanner.Bytes())
		}
	}
	exit := (*exec.ExitError)(nil)
	return errors.As(cmd.Wait(), &exit)
}

// checkKilled fails unless every image that is visible is right, is there once,
// and those acknowledged are there.
func checkKilled(t *testing.T, dir string, acked map[int]bool) {
	t.Helper()
	if visible := files(t, dir); !onlyKillImages(visible) {
		t.Error("a wrong image is visible before the recovery, or one twice")
	}
	s := newDirStore(t, &DirStore{Dir: dir})
	defer s.Close()
	stored := 0
	for i := range killImages {
		id, _, content := killImage(i)
		r, ok, err := s.Receipt(t.Context(), id)
		if err != nil || acked[i] && !ok || ok && r != receiptOf(id, content) {
			t.Errorf("image %d, acknowledged %t: receipt %v, %t, %v", i, acked[i], r, ok, err)
		}
		if ok {
			stored++
		}
	}
	if visible := files(t, dir); len(visible) != stored || !onlyKillImages(visible) {
		t.Errorf("%d images visible for %d receipts", len(visible), stored)
	}
}

// onlyKillImages reports whether each is the content of one image of its name.
func onlyKillImages(visible map[string][]byte) bool {
	count := make(map[string]int)
	for _, content := range visible {
		count[string(content)]++
	}
	for i := range killImages {
		_, _, content := killImage(i)
		if count[string(content)]--; count[string(content)] <= 0 {
			delete(count, string(content))
		}
	}
	return len(count) == 0
}
