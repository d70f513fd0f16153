package chunk_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pixferry/pixferry/chunk"
)

// Chunks may come in any order, before the size is known.
func ExampleAssembler() {
	image := chunk.NewBuffer(1 << 20)
	a, err := chunk.NewAssembler(image, chunk.SHA256, -1, 1<<20)
	if err != nil {
		fmt.Println(err)
		return
	}
	a.WriteAt([]byte("image"), 3)
	a.WriteAt([]byte("an im"), 0) // overlaps
	a.SetSize(8)
	root, whole := a.Root()
	fmt.Println(a.Covered(), whole, root)
	// Output:
	// 8 true sha256:49653c15acd2c93aad14732dc76b7d92c68f87239f8bf0ab9f337efec22b7c79
}

func ExampleHasher() {
	h := chunk.NewHasher(chunk.SHA256)
	fmt.Fprint(h, "an image")
	fmt.Println(h.Root())
	// Output:
	// sha256:49653c15acd2c93aad14732dc76b7d92c68f87239f8bf0ab9f337efec22b7c79
}

func ExampleRanges() {
	var have chunk.Ranges
	have.Add(0, 1000)
	have.Add(3000, 4000)
	have.Add(500, 1500)
	for gap := range have.Gaps(0, 5000) {
		fmt.Println("missing", gap.Start, "to", gap.End)
	}
	fmt.Println(have.Covered(), "bytes in", have.Count(), "ranges")
	// Output:
	// missing 1500 to 3000
	// missing 4000 to 5000
	// 2500 bytes in 2 ranges
}

func ExampleSplit() {
	for c, err := range chunk.Split(strings.NewReader("an image"), -1, 3) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%d %q %v\n", c.Offset, c.Data, c.Last)
	}
	// Output:
	// 0 "an " false
	// 3 "ima" false
	// 6 "ge" true
}

func ExampleSplitter() {
	s := &chunk.Splitter{Source: strings.NewReader("an image"), Size: 8, ChunkSize: 3}
	buf := make([]byte, s.ChunkSize)
	for _, i := range slices.Backward([]int64{0, 1, 2}) {
		c, err := s.Read(i, buf)
		fmt.Printf("%d %q %v %v\n", c.Offset, c.Data, c.Last, err)
	}
	// Output:
	// 6 "ge" true <nil>
	// 3 "ima" false <nil>
	// 0 "an " false <nil>
}
