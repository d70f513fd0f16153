package session

import "fmt"

func (c *Conn) ZZ() string {
	c.mu.Lock()
	s := c.s
	c.mu.Unlock()
	if s == nil {
		return ""
	}
	st := s.Stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%+v %v", st, s.eng.ZZ())
}
