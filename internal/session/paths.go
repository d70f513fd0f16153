package session

import (
	"net"
	"slices"
	"sync"
	"time"

	"github.com/pixferry/pixferry/internal/arq/cc"
)

const (
	// maxPaths is how many hosts are remembered.
	maxPaths = 64
	// pathHalfLife is how long half of a remembered rate lasts.
	pathHalfLife = 10 * time.Minute
)

// paths remembers how fast the ways to other hosts are, for their next sessions, which take it for a hint.
// Only links with congestion control have something to remember.
type paths struct {
	mu   sync.Mutex
	list []knownPath // the newest last
}

type knownPath struct {
	host string
	path cc.Path
	at   time.Time
}

// hostOf is a peer without its port, which changes from session to session.
func hostOf(peer string) string {
	if host, _, err := net.SplitHostPort(peer); err == nil {
		return host
	}
	return peer
}

// find returns the index of a host, -1 for none. The mutex is held.
func (p *paths) find(host string) int {
	return slices.IndexFunc(p.list, func(known knownPath) bool { return known.host == host })
}

// recall returns what is known of the way to a peer, the zero Path for nothing. The older it is the
// lower is its rate.
func (p *paths) recall(peer string, now time.Time) cc.Path {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.find(hostOf(peer))
	if i < 0 {
		return cc.Path{}
	}
	known := p.list[i].path
	known.Rate >>= min(uint(max(now.Sub(p.list[i].at), 0)/pathHalfLife), 63)
	return known
}

// keep remembers what a session has learned, if it has.
func (p *paths) keep(peer string, path cc.Path, now time.Time) {
	if path.Rate <= 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	host := hostOf(peer)
	i := p.find(host)
	if i < 0 && len(p.list) == maxPaths {
		i = 0
	}
	if i >= 0 {
		p.list = slices.Delete(p.list, i, i+1)
	}
	p.list = append(p.list, knownPath{host, path, now})
}
