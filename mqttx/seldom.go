package mqttx

import (
	"log/slog"
	"sync"
	"time"
)

// seldomPause is between two lines that say the same.
const seldomPause = 10 * time.Second

// seldom is what may happen with each message: the log has a line of it now and then.
type seldom struct {
	mu     sync.Mutex
	told   time.Time
	untold int // since then
}

func (s *seldom) warn(log *slog.Logger, what string, attrs ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.told.IsZero() && time.Since(s.told) < seldomPause {
		s.untold++
		return
	}
	if s.untold > 0 {
		attrs = append(attrs, "more before", s.untold)
	}
	log.Warn(what, attrs...)
	s.told, s.untold = time.Now(), 0
}
