package sim

import "math/rand/v2"

// LossModel decides the fate of one message after the other.
type LossModel interface {
	Lost(r *rand.Rand) bool
}

// Bernoulli loses each message with this probability, independently.
type Bernoulli float64

// Lost implements [LossModel].
func (p Bernoulli) Lost(r *rand.Rand) bool { return p > 0 && r.Float64() < float64(p) }

// GilbertElliott loses messages in bursts: all of those sent while it is in its bad state.
type GilbertElliott struct {
	ToBad  float64 // probability of a burst to begin, for each message
	ToGood float64 // probability of a burst to end, for each message
	bad    bool
}

// Bursts returns the model that loses the fraction loss of all messages in bursts of so
// many on average.
func Bursts(loss, length float64) *GilbertElliott {
	good := 1 / length
	return &GilbertElliott{ToBad: good * loss / (1 - loss), ToGood: good}
}

// Lost implements [LossModel].
func (g *GilbertElliott) Lost(r *rand.Rand) bool {
	p := g.ToBad
	if g.bad {
		p = g.ToGood
	}
	if r.Float64() < p {
		g.bad = !g.bad
	}
	return g.bad
}
