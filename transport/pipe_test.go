package transport

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
)

func TestPipeSmoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		store := &MemStore{}
		srv := &Server{Store: store}
		go srv.ServeConn(t.Context(), b)
		img := &Image{Name: "x.jpg", Body: Bytes(bytes.Repeat([]byte("abc"), 1<<20))}
		r, err := a.Send(t.Context(), img, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(r)
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
}
