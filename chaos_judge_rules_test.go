//go:build linux

package usher_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestChaosJudge breaks each rule that chaosHistory holds a run to, so that it is known to notice.
func TestChaosJudge(t *testing.T) {
	// Times are small numbers. Takers 1 and 2 are at endpoint 0, the others at endpoint 1.
	lives := []chaosLife{
		{serial: 0, pid: 100, endpoint: -1, began: 1, endedAt: 1000},
		{serial: 1, pid: 101, endpoint: 0, began: 1, endedAt: 1000},
		{serial: 2, pid: 102, endpoint: 0, began: 1, killedAt: 50, endedAt: 55, killed: true},
		{serial: 3, pid: 103, endpoint: 1, began: 1, endedAt: 1000},
		{serial: 4, pid: 104, endpoint: 1, began: 1, killedAt: 50, endedAt: 55, killed: true},
		{serial: 5, pid: 105, endpoint: -1, began: 1, killedAt: 50, endedAt: 55, killed: true},
	}
	served := func(by int) chaosClient { return chaosClient{began: 5, ended: 90, reply: replyWhole, servedBy: by} }
	ended := func(at int64) chaosClient { return chaosClient{began: 5, ended: at} }
	// What comes before a connection is back, and what may come after.
	const hadBack = "0 10 accept 0 0 0, 0 11 offer 1 1 1, 3 12 claim 0 1 100, 0 13 handed 1 1 0, 3 14 back 0 0 0, "
	const onward = "0 21 offer 1001 0 1001, 1 22 claim 0 1001 100, 0 23 handed 1001 0 0, "
	tests := []struct {
		name   string
		client chaosClient
		events string // serial at what a b c, separated by commas
		want   string // in the problem; none if empty
	}{
		{"handed over and served", served(1), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 1 12 claim 0 1 100, 0 13 handed 1 0 0, 1 80 done 0 0 0", ""},
		{"kept, and handed to another", served(3),
			"0 10 accept 0 0 0, 0 11 offer 1 0 1, 0 12 kept 1 0 0, 0 13 offer 2 1 1, 3 14 claim 1 1 100, 0 15 handed 2 1 0, 3 80 done 0 0 0, 0 81 report 1 103 9", ""},
		{"kept, made anew and handed to the same", served(1),
			"0 10 accept 0 0 0, 0 11 offer 1 0 1, 0 12 kept 1 0 0, 0 12 renewed 2 0 0, 0 13 offer 2 0 2, 1 14 claim 1 2 100, 0 15 handed 2 0 0, 1 80 done 0 0 0", ""},
		{"reclaimed and served by the giver", served(0), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 0 12 kept 1 0 0, 0 13 reclaim 0 0 0, 0 80 done 0 0 0", ""},
		{"served after the death of its giver", served(1), "5 10 accept 0 0 0, 5 11 offer 1 0 1, 1 60 claim 0 1 105, 1 80 done 0 0 0", ""},
		{"served by a taker that was killed before it said so", served(2), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 2 12 claim 0 1 100, 0 13 handed 1 0 0", ""},
		{"lost with a taker that had logged it", ended(60), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 2 12 claim 0 1 100, 0 13 handed 1 0 0", ""},
		{"lost with a taker that had not", ended(60), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 0 13 handed 1 0 0", ""},
		{"lost with a giver that had it", ended(60), "5 10 accept 0 0 0", ""},
		{"lost with a giver that had it on offer", ended(60), "5 10 accept 0 0 0, 5 11 offer 1 0 1", ""},
		{"lost with a giver that had taken it back", ended(60), "5 10 accept 0 0 0, 5 11 offer 1 0 1, 5 12 kept 1 0 0, 5 13 reclaim 0 0 0", ""},
		{"lost with a giver that had not logged it", ended(60), "", ""},

		{"served by a taker that was killed before it reported that", served(4),
			"0 10 accept 0 0 0, 0 11 offer 1 1 1, 4 12 claim 0 1 100, 0 13 handed 1 1 0, 4 20 done 0 0 0", ""},
		{"reported to a giver that was killed before it heard", served(3), "5 10 accept 0 0 0, 5 11 offer 1 1 1, 3 12 claim 0 1 105, 3 20 done 0 0 0", ""},

		{"not reported", served(3), "0 10 accept 0 0 0, 0 11 offer 1 1 1, 3 12 claim 0 1 100, 0 13 handed 1 1 0, 3 20 done 0 0 0", "has not reported the end"},
		{"reported twice", served(3),
			"0 10 accept 0 0 0, 0 11 offer 1 1 1, 3 12 claim 0 1 100, 0 13 handed 1 1 0, 3 20 done 0 0 0, 0 21 report 1 103 9, 0 22 report 1 103 9", "reported twice"},
		{"reported by another", served(3),
			"0 10 accept 0 0 0, 0 11 offer 1 1 1, 3 12 claim 0 1 100, 0 13 handed 1 1 0, 3 20 done 0 0 0, 0 21 report 1 104 9", "is not that of"},
		{"reported before it was claimed", served(3),
			"0 10 accept 0 0 0, 0 11 offer 1 1 1, 0 12 report 1 103 9, 3 13 claim 0 1 100, 0 13 handed 1 1 0, 3 20 done 0 0 0", "is not that of"},
		{"reported and never claimed", ended(60), "5 10 accept 0 0 0, 5 11 offer 1 1 1, 5 12 report 1 103 9", "nobody has claimed it"},
		{"reported to a strange giver", served(3),
			"0 10 accept 0 0 0, 0 11 offer 1 1 1, 3 12 claim 0 1 100, 0 13 handed 1 1 0, 3 20 done 0 0 0, 5 21 report 1 103 9", "has not accepted it"},
		{"claimed twice", served(1), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 1 12 claim 0 1 100, 3 12 claim 0 1 100, 0 13 handed 1 0 0, 1 80 done 0 0 0", "OWNED TWICE: claim by"},
		{"claimed twice by one process", served(1), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 1 12 claim 0 1 100, 1 12 claim 0 1 100", "OWNED TWICE: claim by"},
		{"claimed and kept", served(1), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 1 12 claim 0 1 100, 0 13 kept 1 0 0, 1 80 done 0 0 0", "OWNED TWICE: a taker has claimed it, and Handoff"},
		{"claimed and reclaimed", served(0), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 0 13 kept 1 0 0, 0 14 reclaim 0 0 0, 1 15 claim 0 1 100, 0 80 done 0 0 0", "OWNED TWICE: a taker has claimed it, and the giver"},
		{"claimed where it was offered before", served(1),
			"0 10 accept 0 0 0, 0 11 offer 1 0 1, 0 12 kept 1 0 0, 0 13 offer 2 1 1, 1 14 claim 1 1 100, 0 15 handed 2 1 0, 1 80 done 0 0 0", "OWNED TWICE: a taker has claimed an offer that was withdrawn"},
		{"claimed before it was offered again", served(1),
			"0 10 accept 0 0 0, 0 11 offer 1 0 1, 0 12 kept 1 0 0, 1 13 claim 1 1 100, 0 14 offer 2 0 1, 0 15 handed 2 0 0, 1 80 done 0 0 0", "OWNED TWICE: a taker has claimed an offer that was withdrawn"},
		{"claimed as it was before it was made anew", served(1),
			"0 10 accept 0 0 0, 0 11 offer 1 0 1, 0 12 kept 1 0 0, 0 12 renewed 2 0 0, 0 13 offer 2 0 2, 1 14 claim 1 1 100, 0 15 handed 2 0 0, 1 80 done 0 0 0", "OWNED TWICE: a taker has claimed an offer that was withdrawn"},
		{"handed over and reclaimed", served(0), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 0 13 handed 1 0 0, 0 14 reclaim 0 0 0, 0 80 done 0 0 0", "OWNED TWICE: it was reclaimed and handed over"},
		{"answered twice", served(1), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 1 12 claim 0 1 100, 0 13 handed 1 0 0, 1 80 done 0 0 0, 3 80 done 0 0 0", "OWNED TWICE: done by"},
		{"accepted twice", served(1), "0 10 accept 0 0 0, 5 10 accept 0 0 0, 0 11 offer 1 0 1, 1 12 claim 0 1 100, 0 13 handed 1 0 0, 1 80 done 0 0 0", "two givers"},
		{"claimed and never offered", served(1), "0 10 accept 0 0 0, 1 12 claim 0 1 100, 1 80 done 0 0 0", "never offered"},
		{"from a strange giver", served(1), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 1 12 claim 0 1 105, 0 13 handed 1 0 0, 1 80 done 0 0 0", "knows process 105 as its giver"},
		{"a handoff that never returned", served(1), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 1 12 claim 0 1 100, 1 80 done 0 0 0", "Handoff has not returned"},
		{"offered by one that has not accepted it", served(1), "0 10 accept 0 0 0, 5 11 offer 1 0 1, 1 12 claim 0 1 100, 1 80 done 0 0 0", "has not accepted it"},
		{"served by another than who claimed", served(3), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 1 12 claim 0 1 100, 0 13 handed 1 0 0, 1 80 done 0 0 0", "has not logged that it owns"},
		{"served and never claimed", served(1), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 0 13 handed 1 0 0", "has not logged that it owns"},
		{"served and not done", served(1), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 1 12 claim 0 1 100, 0 13 handed 1 0 0", "has not come to the end"},
		{"failed by who had it", ended(60), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 1 12 claim 0 1 100, 0 13 handed 1 0 0, 1 20 failed 0 0 0", "failed on it"},
		{"a strange answer", chaosClient{began: 5, ended: 60, reply: replyWrong}, "0 10 accept 0 0 0, 0 11 offer 1 0 1, 2 12 claim 0 1 100, 0 13 handed 1 0 0", "no answer to it"},
		{"part of an answer from nobody", chaosClient{began: 5, ended: 60, reply: replyPart}, "5 10 accept 0 0 0", "part of an answer"},

		{"handed back, and on to another", served(1), hadBack + "0 16 came 1 103 0, 3 17 gone 0 0 0, 0 18 passed 1 103 0, " + onward + "1 80 done 0 0 0", ""},
		{"handed back before the giver knew that it was handed over", served(1),
			"0 10 accept 0 0 0, 0 11 offer 1 1 1, 3 12 claim 0 1 100, 3 14 back 0 0 0, 0 16 came 1 103 0, 0 17 handed 1 1 0, 3 17 gone 0 0 0, 0 18 passed 1 103 0, " + onward + "1 80 done 0 0 0", ""},
		{"handed back and served by the giver", served(0), hadBack + "3 15 gone 0 0 0, 0 16 came 1 103 0, 0 18 passed 1 103 0, 0 20 reclaim 0 0 0, 0 80 done 0 0 0", ""},
		{"not taken back", served(3), hadBack + "3 15 stayed 0 0 0, 3 80 done 0 0 0, 0 81 report 1 103 9", ""},
		{"lost with a giver that had it back, and had not logged that", ended(60),
			"5 10 accept 0 0 0, 5 11 offer 1 1 1, 3 12 claim 0 1 105, 5 13 handed 1 1 0, 3 14 back 0 0 0, 3 15 gone 0 0 0", ""},
		{"lost with a taker that handed it back", ended(60),
			"0 10 accept 0 0 0, 0 11 offer 1 1 1, 4 12 claim 0 1 100, 0 13 handed 1 1 0, 4 14 back 0 0 0", ""},

		{"handed back to a giver that lives, and lost", ended(60), hadBack + "3 15 gone 0 0 0", "which was not killed and has not got it"},
		{"handed back for ever", served(3), hadBack + "3 80 done 0 0 0", "HandBack has not returned"},
		{"handed back, and served all the same", served(3), hadBack + "3 15 gone 0 0 0, 3 80 done 0 0 0, 0 81 report 1 103 9", "OWNED TWICE: taker 3 (pid 103, endpoint 1) has answered, and had handed it back"},
		{"served, and handed back", served(3), "0 10 accept 0 0 0, 0 11 offer 1 1 1, 3 12 claim 0 1 100, 0 13 handed 1 1 0, 3 13 done 0 0 0, 3 14 back 0 0 0, 0 16 came 1 103 0", "has answered it, and handed it back"},
		{"not taken back, and it came", served(0), hadBack + "3 15 stayed 0 0 0, 0 16 came 1 103 0", "OWNED TWICE: HandBack told the taker that it has not gone back, and it came"},
		{"it came, and was not taken back", served(0), hadBack + "0 16 came 1 103 0, 3 17 stayed 0 0 0", "OWNED TWICE: it came back, and HandBack told the taker"},
		{"it came, and Handoff says that it never went", served(0),
			"0 10 accept 0 0 0, 0 11 offer 1 1 1, 3 12 claim 0 1 100, 3 14 back 0 0 0, 0 16 came 1 103 0, 0 17 kept 1 1 0", "OWNED TWICE: a taker has claimed it, and Handoff"},
		{"it came twice", served(0), hadBack + "0 16 came 1 103 0, 0 17 came 1 103 0", "OWNED TWICE: it came back to giver 0"},
		{"it came from nobody", served(0), "0 10 accept 0 0 0, 0 16 came 1 103 0", "nobody has handed it back"},
		{"it came from another", served(0), hadBack + "0 16 came 1 104 0", "it came back from process 104"},
		{"it came to another", served(0), hadBack + "5 16 came 1 103 0", "and back to giver 5"},
		{"handed back by another", served(3), "0 10 accept 0 0 0, 0 11 offer 1 1 1, 3 12 claim 0 1 100, 0 13 handed 1 1 0, 1 14 back 0 0 0", "has not claimed it"},
		{"handed back and not reported", served(1), hadBack + "3 15 gone 0 0 0, 0 16 came 1 103 0, " + onward + "1 80 done 0 0 0", "has not reported that"},
		{"reported as handed back, and it never was", served(3),
			"0 10 accept 0 0 0, 0 11 offer 1 1 1, 3 12 claim 0 1 100, 0 13 handed 1 1 0, 0 18 passed 1 103 0", "nobody has"},

		{"lost by a taker that lived", ended(60), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 1 12 claim 0 1 100, 0 13 handed 1 0 0", "was not killed"},
		{"lost by a giver that lived", ended(60), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 0 12 kept 1 0 0", "the connection was with giver 0"},
		{"lost by a giver that never offered it", ended(60), "0 10 accept 0 0 0", "the connection was with giver 0"},
		{"lost on offer by a giver that lives", ended(60), "0 10 accept 0 0 0, 0 11 offer 1 0 1", "Handoff has not returned"},
		{"lost before its owner was killed", ended(40), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 2 12 claim 0 1 100, 0 13 handed 1 0 0", "10ns before its owner"},
		{"lost, and answered by the log", ended(60), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 2 12 claim 0 1 100, 0 13 handed 1 0 0, 2 20 done 0 0 0", "says that it has answered"},
		{"handed to one that died before", ended(90), "0 10 accept 0 0 0, 0 60 offer 1 0 1, 0 61 handed 1 0 0", "no killed process"},
		{"handed, and lost before anybody was killed", ended(40), "0 10 accept 0 0 0, 0 11 offer 1 0 1, 0 12 handed 1 0 0", "no killed process"},
		{"no giver died that could have had it", ended(40), "", "no killed process"},
		{"no giver had died when the client came", chaosClient{began: 56, ended: 60}, "", "no killed process"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := &chaosHistory{lives: lives, clients: []*chaosClient{&tt.client}, events: make(map[int][]chaosEvent)}
			tt.client.id = 7
			for line := range strings.SplitSeq(tt.events, ", ") {
				h.add(t, 7, line)
			}
			checkProblem(t, h, tt.want)
		})
	}

	// One goroutine of a killed process can have had one connection that it did not log.
	owners := func(t *testing.T, lost int, others ...string) *chaosHistory {
		h := &chaosHistory{lives: lives, events: make(map[int][]chaosEvent)}
		for i := range lost {
			h.clients = append(h.clients, &chaosClient{id: i + 1, began: 5, ended: 60})
			for _, line := range others {
				h.add(t, i+1, line)
			}
		}
		return h
	}
	handed := []string{"0 10 accept 0 0 0", "0 11 offer 1 0 1", "0 13 handed 1 0 0"}
	t.Run("as many as goroutines accept", func(t *testing.T) { checkProblem(t, owners(t, chaosAcceptors, handed...), "") })
	t.Run("more than that", func(t *testing.T) { checkProblem(t, owners(t, chaosAcceptors+1, handed...), "no killed process") })
	t.Run("one that nobody accepted", func(t *testing.T) { checkProblem(t, owners(t, 1), "") })
	t.Run("two of them", func(t *testing.T) { checkProblem(t, owners(t, 2), "no killed process") })
	t.Run("goroutines that logged more later", func(t *testing.T) {
		h := owners(t, 1, handed...)
		h.clients = append(h.clients, &chaosClient{id: 2, began: 5, ended: 60}, &chaosClient{id: 3, began: 5, ended: 60})
		for g := range chaosAcceptors {
			h.add(t, 2+g, "0 20 accept 0 0 0")
			h.add(t, 2+g, "0 21 offer 1 0 1")
			h.add(t, 2+g, fmt.Sprintf("2 22 claim %d 1 100", g))
			h.add(t, 2+g, "0 23 handed 1 0 0")
		}
		checkProblem(t, h, "no killed process")
	})
}

// add adds an event as the tests above write it.
func (h *chaosHistory) add(t *testing.T, id int, line string) {
	t.Helper()
	if line == "" {
		return
	}
	e := chaosEvent{id: id}
	if _, err := fmt.Sscan(line, &e.serial, &e.at, &e.what, &e.a, &e.b, &e.c); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	parsed, err := parseChaosEvent(strings.TrimSuffix(e.line(), "\n"))
	parsed.serial = e.serial
	if err != nil || parsed != e {
		t.Fatalf("a line of the log became %+v, %v; want %+v", parsed, err, e)
	}
	h.events[id] = append(h.events[id], e)
}

func checkProblem(t *testing.T, h *chaosHistory, want string) {
	t.Helper()
	_, problems := h.judge()
	if want == "" && len(problems) > 0 {
		t.Errorf("a problem: %s", h.report(problems[0]))
	}
	if want != "" && (len(problems) != 1 || !strings.Contains(problems[0].err.Error(), want)) {
		t.Errorf("problems: %v; want one that says %q", problems, want)
	}
}
