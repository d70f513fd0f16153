package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

func tcpSuite(ctx context.Context, o *options, r *report) error {
	large := o.large()
	var cases []benchCase
	for _, alg := range []chunk.Algorithm{transport.XXH3, chunk.SHA256, blake} {
		raw := system{"raw loop, " + alg.Name, limit, 0.85, func(ctx context.Context) (runner, error) { return openRawTCP(ctx, alg, 1) }}
		if alg.ID == transport.XXH3.ID {
			raw = system{"raw loop", limit, 0.85, func(ctx context.Context) (runner, error) { return openRawTCP(ctx, chunk.Algorithm{}, 1) }}
		}
		cases = append(cases, benchCase{"tcp", sizeName(large) + ", " + alg.Name, work{large, 1, 1}, []system{
			{"pixferry", ours, 0, func(ctx context.Context) (runner, error) { return openTCP(ctx, nowhere{}, alg) }},
			raw,
			{"net/http PUT, " + alg.Name, peer, 1, func(ctx context.Context) (runner, error) { return openHTTP(ctx, alg, 1) }},
		}})
	}
	for _, at := range []int{8, 1} {
		httpWant, rawWant := 1.5, 0.0
		if at == 1 {
			httpWant, rawWant = 1.2, 1/1.4
		}
		cases = append(cases, benchCase{"tcp", "1,000 x 100 KB, " + atOnce(at), work{100_000, 1000, at}, []system{
			{"pixferry", ours, 0, func(ctx context.Context) (runner, error) { return openTCP(ctx, nowhere{}, transport.XXH3) }},
			{"raw framed, answered", limit, rawWant, func(ctx context.Context) (runner, error) { return openRawTCP(ctx, chunk.Algorithm{}, at) }},
			{"net/http PUT, " + transport.XXH3.Name, peer, httpWant, func(ctx context.Context) (runner, error) { return openHTTP(ctx, transport.XXH3, at) }},
		}})
	}
	source, err := sourceFile(large)
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(source))
	cases = append(cases, benchCase{"tcp", "file to file with sync, " + sizeName(large), work{large, 1, 1}, []system{
		{"pixferry", ours, 0, warmed(large, func(ctx context.Context) (runner, error) { return openTCPFiles(ctx, source) })},
		{"copy loop", limit, 0.85, warmed(large, func(ctx context.Context) (runner, error) { return openCopy(ctx, true, source) })},
		{"io.Copy (sendfile, splice)", limit, 0, warmed(large, func(ctx context.Context) (runner, error) { return openCopy(ctx, false, source) })},
	}})
	if err := measureAll(ctx, o, r, cases); err != nil {
		return err
	}
	return memoryRows(ctx, o, r, "tcp", openTCPParty)
}

func openTCP(ctx context.Context, store transport.Store, alg chunk.Algorithm) (*ferry, error) {
	cfg := native.Config{}
	if alg.ID != transport.XXH3.ID {
		cfg.Digest = alg
	}
	return openFerry(ctx, store, &tcpx.Transport{Addr: "127.0.0.1:0", Config: cfg},
		func(addr string) transport.Transport { return &tcpx.Transport{Addr: addr, Config: cfg} })
}

// ferryFiles sends a file into a DirStore.
type ferryFiles struct {
	*ferry
	store  *transport.DirStore
	source string
}

func openTCPFiles(ctx context.Context, source string) (runner, error) {
	dir, err := os.MkdirTemp(filepath.Dir(source), "store")
	if err != nil {
		return nil, err
	}
	store := &transport.DirStore{Dir: dir}
	f, err := openTCP(ctx, store, transport.XXH3)
	if err != nil {
		return nil, err
	}
	return &ferryFiles{f, store, source}, nil
}

func (f *ferryFiles) do(ctx context.Context, w work) error {
	body := transport.File(f.source)
	if info, err := os.Stat(f.source); err != nil {
		return err
	} else if info.Size() != w.size { // the first part, to warm up
		body = transport.Bytes(image(w.size))
	}
	return f.send(ctx, &transport.Image{Name: "image", MediaType: "image/jpeg", Body: body}, w)
}

func (f *ferryFiles) close() {
	f.ferry.close()
	f.store.Close()
	os.RemoveAll(f.store.Dir)
}

// warmed is open with memory at hand for a file of that size, and for what else takes some meanwhile.
func warmed(size int64, open func(context.Context) (runner, error)) func(context.Context) (runner, error) {
	return func(ctx context.Context) (runner, error) {
		warmPages(3 * int(size))
		return open(ctx)
	}
}

// sourceFile makes a file of noise in a directory of its own, on the disk.
func sourceFile(size int64) (string, error) {
	dir, err := os.MkdirTemp("", "pixferry-bench")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "source")
	return path, os.WriteFile(path, image(size), 0o600)
}

// large is the size of the large image.
func (o *options) large() int64 {
	if o.quick {
		return 128 << 20
	}
	return 1 << 30
}

func sizeName(size int64) string {
	if size == 1<<30 {
		return "1 GiB"
	}
	return "128 MiB"
}

func atOnce(n int) string {
	if n == 1 {
		return "one after another"
	}
	return "8 at once"
}
