package pixferry_test

import (
	"os"
	"strings"
	"testing"
)

// The README shows nothing that does not compile: each line of its Go blocks
// stands, one below the other, in example_test.go.
func TestReadmeSnippetsAreFromTheExamples(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(readme), "```go\n")[1:]
	if len(blocks) < 10 {
		t.Errorf("only %d Go blocks found", len(blocks))
	}
	for _, b := range blocks {
		block, _, _ := strings.Cut(b, "```")
		if !strings.Contains(string(source), block) {
			t.Errorf("not in example_test.go:\n%s", block)
		}
	}
}
