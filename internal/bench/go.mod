module github.com/pixferry/pixferry/internal/bench

go 1.25.0

replace github.com/pixferry/pixferry => ../..

require (
	github.com/pixferry/pixferry v0.0.0
	github.com/zeebo/blake3 v0.2.4
)

require (
	github.com/klauspost/cpuid/v2 v2.3.0 // indirect
	github.com/zeebo/xxh3 v1.1.0 // indirect
	golang.org/x/sync v0.22.0
	golang.org/x/sys v0.47.0 // indirect
)
