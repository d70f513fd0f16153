package sim

import (
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/arq"
)

// A device may take what lies in order alone, or little ahead of a gap (HELLO, reorder). It acknowledges nothing of
// what a lossy path brings it behind a gap, and yet gets all.
func TestPeerTakesLittleAheadOfAGap(t *testing.T) {
	t.Parallel()
	for _, reorder := range []uint32{0, 1, 1200, 3000, 20_000} {
		for seed := range uint64(10) {
			w := newWorld(seed)
			w.fail = func(f string, a ...any) {
				t.Helper()
				t.Fatalf("reorder %d, seed %d: "+f, append([]any{reorder, seed}, a...)...)
			}
			cfg := Config{Rate: 1 << 20, Delay: 10 * time.Millisecond, Loss: Bernoulli(0.1)}
			p := newPlain(w, cfg, cfg, func(c *arq.Config) { c.Local.Reorder = reorder })
			p.connect()
			p.finish(p.send(100_000), w.clock.Now(), 20*time.Second)
		}
	}
}
