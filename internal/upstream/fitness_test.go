package upstream

import (
	"errors"
	"testing"

	"github.com/go-usher/usher/internal/config"
)

func TestFitness(t *testing.T) {
	active := &config.Health{Interval: 1, Rise: 2, Fall: 3}
	passive := &config.Health{Rise: 2, Fall: 3, Cooldown: 1}
	for _, test := range []struct {
		name   string
		health *config.Health
		// events are connections of clients that succeed (D) or fail (d), and checks that do (C, c); states
		// are fit (+) or unfit (-) after each.
		events, states string
	}{
		{"checks that fail in a row make it unfit", active, "cccc", "++--"},
		{"checks that fail now and then do not", active, "ccCccCcc", "++++++++"},
		{"checks that succeed in a row make it fit", active, "cccCcCCC", "++---" + "-++"},
		{"it falls again after as many failures as before", active, "cccCCccc", "++--+++-"},
		{"connections that fail in a row make it unfit", active, "dddd", "++--"},
		{"connections that fail now and then do not", active, "ddDddDdd", "++++++++"},
		{"checks and connections are counted apart", active, "ddccdCc", "++++-" + "--"},
		{"with checks, a connection that succeeds does not make it fit", active, "dddDDCDC", "++-----+"},
		{"after checks made it fit, connections are counted from none", active, "dddCCddd", "++--+++-"},
		{"without checks, a connection that succeeds makes it fit", passive, "dddDddd", "++-+++-"},
		{"counts of none are counts of one", &config.Health{Interval: 1}, "cCdC", "-+-+"},
		{"without health nothing makes it unfit", nil, "dddddddddd", "++++++++++"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := healthOf(test.health)
			var f fitness
			fit, states := true, ""
			for _, event := range test.events {
				var changed change
				switch event {
				case 'D':
					changed = f.afterDial(nil, h)
				case 'd':
					changed = f.afterDial(errors.New("refused"), h)
				case 'C':
					changed = f.afterCheck(nil, h)
				case 'c':
					changed = f.afterCheck(errors.New("refused"), h)
				}
				want := unchanged
				if fit && f.unfit {
					want = fell
				} else if !fit && !f.unfit {
					want = rose
				}
				if changed != want {
					t.Errorf("after %q the change is said to be %d, is %d", states, changed, want)
				}
				fit = !f.unfit
				states += map[bool]string{true: "+", false: "-"}[fit]
			}
			if states != test.states {
				t.Errorf("%s led to %s, want %s", test.events, states, test.states)
			}
		})
	}
}

// TestFitnessOnProbation: once it has cooled down, a backend without checks is unfit after the next failure.
func TestFitnessOnProbation(t *testing.T) {
	h := healthOf(&config.Health{Fall: 2})
	f := fitness{unfit: true, dialFailures: 2}
	f.unfit = false // as Backend.cooled does
	if changed := f.afterDial(errors.New("refused"), h); changed != fell || !f.unfit {
		t.Errorf("change %d, unfit %v", changed, f.unfit)
	}
}
