//go:build race

package tcpx_test

const race = true // the detector multiplies memory
