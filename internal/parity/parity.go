// Package parity is the erasure code of SPEC.md section 10: Reed-Solomon with a Cauchy matrix.
package parity

import (
	"sync"

	"github.com/klauspost/reedsolomon"
)

// maxCodes is how many codes are kept, one for each pair of numbers of symbols.
const maxCodes = 64

// Coder implements arq.Coder. The zero value is ready for use, and safe for concurrent use.
type Coder struct {
	mu    sync.Mutex
	codes map[[2]int]reedsolomon.Encoder
}

func (c *Coder) code(data, parity int) (reedsolomon.Encoder, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := [2]int{data, parity}
	if code := c.codes[key]; code != nil {
		return code, nil
	}
	code, err := reedsolomon.New(data, parity, reedsolomon.WithCauchyMatrix(),
		reedsolomon.WithMaxGoroutines(1), reedsolomon.WithInversionCache(false))
	if err != nil {
		return nil, err
	}
	if c.codes == nil || len(c.codes) >= maxCodes {
		c.codes = make(map[[2]int]reedsolomon.Encoder)
	}
	c.codes[key] = code
	return code, nil
}

// Encode implements arq.Coder.
func (c *Coder) Encode(data, parity [][]byte) error {
	code, err := c.code(len(data), len(parity))
	if err != nil {
		return err
	}
	return code.Encode(append(data[:len(data):len(data)], parity...))
}

// Repair implements arq.Coder.
func (c *Coder) Repair(data, parity [][]byte) error {
	code, err := c.code(len(data), len(parity))
	if err != nil {
		return err
	}
	symbols := append(data[:len(data):len(data)], parity...)
	if err := code.ReconstructData(symbols); err != nil {
		return err
	}
	copy(data, symbols)
	return nil
}
