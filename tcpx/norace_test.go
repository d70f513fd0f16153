//go:build !race

package tcpx_test

const race = false
