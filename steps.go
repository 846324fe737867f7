package usher

// The steps of a handover, for tests that stop or kill a process right before or after one. Package
// variables, and nil outside of tests: a handover is too fast to look an interface up at each step.
type step string

const (
	stepOffer    step = "offer"    // giver: writes the ticket
	stepSend     step = "send"     // giver: sends the offer
	stepTold     step = "told"     // giver: learns of the claim, or that it was declined
	stepWithdraw step = "withdraw" // giver: tears the ticket, or finds it claimed
	stepDrop     step = "drop"     // giver: closes its copy of a connection that was claimed
	stepReceive  step = "receive"  // taker: receives the offer
	stepClaim    step = "claim"    // taker: tears the ticket, or finds it withdrawn
	stepTell     step = "tell"     // taker: sends its answer
	stepClose    step = "close"    // taker: the connection's owner closes it
)

type moment string

const (
	before moment = "before"
	after  moment = "after"
)

// breakpoint, if not nil, is called at each step.
var breakpoint func(step, moment)

func at(s step, m moment) {
	if breakpoint != nil {
		breakpoint(s, m)
	}
}
