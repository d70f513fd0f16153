package session

// LinkInfo is native.LinkInfo, described there.
type LinkInfo struct {
	Protocol   string
	Peer       string
	Ordered    bool
	Reliable   bool
	MaxMessage int
	Sizes      []int
}

// reliable says that nothing is lost until the link is.
func (i *LinkInfo) reliable() bool { return i.Ordered && i.Reliable }

// A Carrier moves the messages of one session. It calls the session's Deliver,
// Poll, Deadline, Advance and Fail as their comments say, from as many goroutines
// as it likes but with times that do not go back.
//
// When the session has ended (Done) it polls and sends until Poll returns 0, for at
// most a second, then frees the medium.
type Carrier interface {
	// Info describes the medium. It is asked before Start and once the peer is known.
	Info() LinkInfo
	// Start begins to move messages. It does not wait.
	Start(s *Session)
	// Wake says that Poll may have a message, or that the deadline is earlier than
	// before, or that the session has ended. It is called from any goroutine
	// without the session's mutex, also before Start, and must not block.
	Wake()
	// Wait returns when the session has ended and the carrier holds nothing and
	// runs no goroutine for it any more.
	Wait()
}

// A hindered is a Carrier that knows why nothing leaves, at present or since something came last; nil:
// nothing is in the way. It is asked for errors, without the session's mutex.
type hindered interface{ Hindrance() error }

// A crowded is a Carrier that knows how many peers of its medium have not proven their addresses.
type crowded interface{ Unproven() int }

// A flusher is a Carrier that can move messages on the goroutine of a caller who may block in
// the medium, which spares the call of another one.
type flusher interface{ Flush() }

// flush has the carrier look for messages, on this goroutine if that helps.
func (s *Session) flush() {
	if f, ok := s.carrier.(flusher); ok {
		f.Flush()
	} else {
		s.carrier.Wake()
	}
}
