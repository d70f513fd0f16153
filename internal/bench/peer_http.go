package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/pixferry/pixferry/chunk"
)

// httpPut is net/http: PUT on connections that are kept alive. Both ends hash on the way, and
// the digest is the answer.
type httpPut struct {
	alg    chunk.Algorithm
	server *http.Server
	client *http.Client
	url    string
}

func openHTTP(_ context.Context, alg chunk.Algorithm, at int) (runner, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &httpPut{alg: alg, url: "http://" + l.Addr().String() + "/image"}
	p.server = &http.Server{Handler: p}
	p.client = &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: at, DisableCompression: true, WriteBufferSize: pieceSize, ReadBufferSize: 4 << 10,
	}}
	go p.server.Serve(l)
	return p, nil
}

func (p *httpPut) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := p.alg.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, r.Body, make([]byte, min(max(r.ContentLength, 1), pieceSize)))
	if err != nil || n != r.ContentLength {
		http.Error(w, "incomplete", http.StatusBadRequest)
		return
	}
	w.Header().Set("Digest", hex.EncodeToString(h.Sum(nil)))
}

func (p *httpPut) do(ctx context.Context, w work) error { return w.each(ctx, p.put) }

func (p *httpPut) put(ctx context.Context, data []byte) error {
	h := p.alg.New()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, p.url, io.TeeReader(bytes.NewReader(data), h))
	if err != nil {
		return err
	}
	req.ContentLength = int64(len(data))
	answer, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	io.Copy(io.Discard, answer.Body)
	if theirs, mine := answer.Header.Get("Digest"), hex.EncodeToString(h.Sum(nil)); theirs != mine {
		return fmt.Errorf("%s: the receiver has the digest %q, the sender %q", answer.Status, theirs, mine)
	}
	return nil
}

func (p *httpPut) close() {
	p.client.CloseIdleConnections()
	p.server.Close()
}
