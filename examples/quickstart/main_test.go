package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/pixferry/pixferry/internal/testimage"
	"os"
)

func TestQuickstartDeliversNineImagesAndTheUsersOwn(t *testing.T) {
	own := filepath.Join(t.TempDir(), "mine.jpg")
	if err := os.WriteFile(own, testimage.JPEG(9, 64, 48), 0o644); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run(t.Context(), &out, t.TempDir(), own); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if n := strings.Count(out.String(), "kept"); n != 12 {
		t.Errorf("%d of 12 images kept:\n%s", n, out.String())
	}
}
