package compare

import (
	"time"

	"longtake/attention"
)

// tallied returns a maker whose policies add up the time that they spend on deciding what to look at; dense attention decides
// nothing.
func tallied(m attention.Maker, _ *time.Duration) attention.Maker { return m }

// probes look at both attentions of an entry.
type probes struct{}

// probed puts probes into an entry's attention.
func probed(e Entry) (Entry, *probes) { return e, &probes{} }

// begin makes the probes look from here on.
func (*probes) begin() {}

// end stops looking and returns what was seen since begin.
func (*probes) end() (self, cross []Share) { return nil, nil }
