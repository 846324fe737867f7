//go:build linux

package usher_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-usher/usher/ipc"
)

// chaosHistory is all that is known of a run, and judges it. For each connection:
//
//   - It is accepted by one giver, and claimed or reclaimed by one process, once.
//   - It is claimed by a process to which it is on offer: at the endpoint of the last offer that the giver
//     made of it, after that, and not if the giver says that it kept it, or reclaimed it.
//   - Its end is reported by the taker that claimed it, once at most; and once if the giver wants that from the
//     endpoint, the taker has answered, and neither was killed.
//   - Its taker may hand it back, once. Then it has come back to the giver that it came from if HandBack said so, and not if that
//     said no; it is reported so; and all of this begins anew.
//   - Who claimed or reclaimed it and lives, or ended in order, has answered it, and the client has the
//     whole answer from that process and no other.
//   - A client that has no answer lost its connection to the death of one process, which was killed while
//     the connection was its own, and not after the client saw the end.
//
// A process that was killed may have owned a connection without having logged that. Then the owner is
// named by others: a giver that says "handed" names the endpoint, and one of the takers there was killed
// between its claim and its line, before any later line of the goroutine that claimed; no such goroutine
// can be named for two connections. In the same way one killed giver can be named for one connection that
// nobody has logged.
type chaosHistory struct {
	seed    uint64
	lives   []chaosLife // by serial
	clients []*chaosClient
	events  map[int][]chaosEvent // by id
	faults  []chaosHappening
}

// chaosSummary counts what became of the connections.
type chaosSummary struct {
	byTaker, byGiver int // served
	outlived         int // of those by a taker, though the giver died before it knew

	diedWithTaker, diedWithGiver   int
	unloggedByTaker, unloggedGiver int // of those, not logged by the owner

	offers, tried, kept, renewed int
	backs, gone, came, stayed    int
	unloggedBack                 int // died with a giver that had not logged that it had come back
	reports                      int
	lateness                     []int          // of Handoff that returned past its deadline, in microseconds
	reasons                      map[string]int // the ends of errors: of those kept, and of refused channels
}

func (s *chaosSummary) String() string {
	slices.Sort(s.lateness)
	median, worst := time.Duration(0), time.Duration(0)
	if n := len(s.lateness); n > 0 {
		median, worst = time.Duration(s.lateness[n/2])*time.Microsecond, time.Duration(s.lateness[n-1])*time.Microsecond
	}
	var b strings.Builder
	fmt.Fprintf(&b, "served: %d by takers (%d of them after the death of a giver that did not know), %d by the giver itself\n",
		s.byTaker, s.outlived, s.byGiver)
	fmt.Fprintf(&b, "died: %d with a killed taker (%d of them before it had logged the claim), %d with a killed giver (%d of them before it had logged anything)\n",
		s.diedWithTaker, s.unloggedByTaker, s.diedWithGiver, s.unloggedGiver)
	fmt.Fprintf(&b, "%d offers, %d of them by TryHandoff, %d kept, %d made anew; %d ends reported; Handoff returned past its deadline %d times, by %v, at most %v\n",
		s.offers, s.tried, s.kept, s.renewed, s.reports, len(s.lateness), median, worst)
	fmt.Fprintf(&b, "handed back: %d tried, %d gone, %d came, %d stayed; %d of them died with a killed giver before it had logged them\n",
		s.backs, s.gone, s.came, s.stayed, s.unloggedBack)
	for _, r := range slices.Sorted(maps.Keys(s.reasons)) {
		fmt.Fprintf(&b, "  %d %s\n", s.reasons[r], r)
	}
	return b.String()
}

// chaosProblem is a connection for which a rule is broken, or 0 for the run.
type chaosProblem struct {
	id  int
	err error
}

// errOwnedTwice is what must never be.
var errOwnedTwice = errors.New("OWNED TWICE")

// chaosCase is what the logs say of one connection.
type chaosCase struct {
	client *chaosClient
	giver  *chaosLife  // nil if none has logged it
	claim  *chaosEvent // by a taker
	own    *chaosEvent // reclaim, by the giver
	offer  *chaosEvent // the last
	after  *chaosEvent // handed or kept, of the last offer
	done   *chaosEvent
	report *chaosEvent

	back      *chaosEvent // the taker hands it back
	backAfter *chaosEvent // gone or stayed
	passed    *chaosEvent // the report of that
	before    *chaosCase  // what was until it came back
}

// isOnItsWayBack says whether it may be the giver's, though that has not logged it.
func (k *chaosCase) isOnItsWayBack() bool {
	return k.back != nil && (k.backAfter == nil || k.backAfter.what == chaosGone)
}

func (h *chaosHistory) judge() (*chaosSummary, []chaosProblem) {
	s := &chaosSummary{reasons: make(map[string]int)}
	var problems []chaosProblem
	add := func(id int, err error) {
		if err != nil {
			problems = append(problems, chaosProblem{id, err})
		}
	}
	unlogged := &chaosUnlogged{h: h, lastClaim: h.lastClaims()}
	known := make(map[int]bool)
	for _, c := range h.clients {
		known[c.id] = true
		k, err := h.open(c)
		if err == nil {
			err = h.judgeOne(k, s, unlogged)
		}
		add(c.id, err)
	}
	for _, id := range unlogged.unnamed() {
		add(id, errors.New("no killed process can have been its owner"))
	}
	for id, events := range h.events {
		if id != 0 && !known[id] {
			add(id, errors.New("there was no such client"))
		}
		for _, e := range events {
			s.count(e)
			if strings.Contains(e.text, ipc.ErrProtocol.Error()) {
				add(id, fmt.Errorf("%s says that a peer broke the protocol: %s", h.lives[e.serial], e.text))
			}
		}
	}
	return s, problems
}

func (s *chaosSummary) count(e chaosEvent) {
	if (e.what == chaosHanded || e.what == chaosKept || e.what == chaosGone || e.what == chaosStayed) && e.c > 0 {
		s.lateness = append(s.lateness, e.c)
	}
	switch e.what {
	case chaosOffer:
		s.offers++
	case chaosTried:
		s.tried++
	case chaosRenewed:
		s.renewed++
	case chaosBack:
		s.backs++
	case chaosGone:
		s.gone++
	case chaosCame:
		s.came++
	case chaosStayed:
		s.stayed++
		s.reasons[e.what+": "+lastWords(e.text)]++
	case chaosReport:
		s.reports++
	case chaosKept:
		s.kept++
		s.reasons[e.what+": "+lastWords(e.text)]++
	case chaosRefused:
		s.reasons[e.what+": "+lastWords(e.text)]++
	}
}

// lastWords is what is the cause, in the texts of most errors.
func lastWords(text string) string {
	text = strings.Trim(text, `"`)
	return text[strings.LastIndex(": "+text, ": "):]
}

// open sorts the events of a connection, and checks those rules for which only their order matters.
func (h *chaosHistory) open(c *chaosClient) (*chaosCase, error) {
	k := &chaosCase{client: c}
	events := h.events[c.id]
	// The sort is stable, and each process logs in order.
	slices.SortStableFunc(events, func(a, b chaosEvent) int { return cmp.Compare(a.at, b.at) })
	for i := range events {
		if err := h.follow(k, &events[i]); err != nil {
			return nil, err
		}
	}
	if k.before != nil {
		if err := h.checkClaim(k.before); err != nil {
			return nil, err
		}
	}
	return k, h.checkClaim(k)
}

// checkClaim checks what can only be known when all is known, of a connection until it came back, or since.
func (h *chaosHistory) checkClaim(k *chaosCase) error {
	if k.claim != nil && k.own != nil {
		return fmt.Errorf("%w: a taker has claimed it, and the giver has reclaimed it", errOwnedTwice)
	}
	if k.claim == nil && k.report != nil {
		return errors.New("its end was reported, and nobody has claimed it")
	}
	if k.claim == nil {
		return nil
	}
	taker := h.lives[k.claim.serial]
	switch {
	case k.offer == nil:
		return errors.New("it was claimed and never offered")
	case k.after != nil && k.after.what == chaosKept:
		return fmt.Errorf("%w: a taker has claimed it, and Handoff told the giver that it has not", errOwnedTwice)
	case taker.endpoint != k.offer.b, k.claim.at < k.offer.at, k.claim.b != k.offer.c:
		return fmt.Errorf("%w: a taker has claimed an offer that was withdrawn", errOwnedTwice)
	case k.claim.c != k.giver.pid:
		return fmt.Errorf("the taker knows process %d as its giver; it was %s", k.claim.c, k.giver)
	case k.after == nil && !k.giver.killed:
		return errors.New("it was claimed, and Handoff has not returned")
	case k.back != nil && k.backAfter == nil && !taker.killed:
		return errors.New("it was handed back, and HandBack has not returned")
	}
	for _, r := range []*chaosEvent{k.report, k.passed} {
		if r != nil && (r.b != taker.pid || r.a != taker.endpoint || r.at < k.claim.at || r.c == 0 && r == k.report) {
			return fmt.Errorf("the report of its end is not that of %s: process %d at endpoint %d, %d bytes", taker, r.b, r.a, r.c)
		}
	}
	return nil
}

// follow takes in the next event.
func (h *chaosHistory) follow(k *chaosCase, e *chaosEvent) error {
	life := &h.lives[e.serial]
	var again *chaosEvent // an event that may only come once
	switch e.what {
	case chaosAccept:
		if k.giver != nil {
			return fmt.Errorf("two givers have accepted it: %s and %s", k.giver, life)
		}
		k.giver = life
	case chaosOffer:
		k.offer, k.after = e, nil
	case chaosHanded, chaosKept:
		if k.before != nil && k.before.offer.a == e.a { // its taker was quicker to hand it back
			k.before.after = e
			break
		}
		if k.offer == nil || k.offer.a != e.a {
			return errors.New("an outcome without an offer")
		}
		k.after = e
	case chaosClaim:
		again, k.claim = k.claim, e
	case chaosReclaim:
		again, k.own = k.own, e
		if k.after != nil && k.after.what == chaosHanded {
			return fmt.Errorf("%w: it was reclaimed and handed over", errOwnedTwice)
		}
	case chaosDone:
		again, k.done = k.done, e
	case chaosBack:
		if k.claim == nil || k.claim.serial != e.serial {
			return fmt.Errorf("%s hands it back, and has not claimed it", life)
		}
		again, k.back = k.back, e
	case chaosGone, chaosStayed:
		j := k
		if k.before != nil {
			j = k.before
		}
		if j.back == nil || j.back.serial != e.serial {
			return errors.New("an outcome without an attempt to hand it back")
		}
		if j == k.before && e.what == chaosStayed {
			return fmt.Errorf("%w: it came back, and HandBack told the taker that it has not", errOwnedTwice)
		}
		again, j.backAfter = j.backAfter, e
	case chaosCame:
		return h.comeBack(k, e)
	case chaosPassed:
		j := k
		if k.before != nil {
			j = k.before
		}
		if j.back == nil {
			return errors.New("it was reported as handed back, and nobody has")
		}
		again, j.passed = j.passed, e
	case chaosReport:
		if k.report != nil {
			return errors.New("its end was reported twice")
		}
		k.report = e
	case chaosFailed:
		return fmt.Errorf("%s failed on it: %s", life, e.text)
	}
	if again != nil {
		return fmt.Errorf("%w: %s by %s and by %s", errOwnedTwice, e.what, h.lives[again.serial], life)
	}
	if life.isGiver() && k.giver != life {
		return fmt.Errorf("%s has not accepted it: %s", life, e.what)
	}
	return nil
}

// comeBack begins anew with a connection that the giver has claimed from its taker.
func (h *chaosHistory) comeBack(k *chaosCase, e *chaosEvent) error {
	life := &h.lives[e.serial]
	switch {
	case k.back == nil:
		return fmt.Errorf("%w: it came back to %s, and nobody has handed it back", errOwnedTwice, life)
	case k.backAfter != nil && k.backAfter.what == chaosStayed:
		return fmt.Errorf("%w: HandBack told the taker that it has not gone back, and it came", errOwnedTwice)
	case k.giver != life:
		return fmt.Errorf("it came from %s, and back to %s", k.giver, life)
	case e.b != h.lives[k.claim.serial].pid:
		return fmt.Errorf("it came back from process %d, and was with %s", e.b, h.lives[k.claim.serial])
	case k.done != nil:
		return fmt.Errorf("%w: %s has answered it, and handed it back", errOwnedTwice, h.lives[k.done.serial])
	}
	before := *k
	*k = chaosCase{client: k.client, giver: life, before: &before}
	return nil
}

// owner returns who has logged that the connection is its own to answer, or nil.
func (h *chaosHistory) owner(k *chaosCase) *chaosLife {
	if k.claim != nil {
		return &h.lives[k.claim.serial]
	}
	if k.own != nil {
		return &h.lives[k.own.serial]
	}
	return nil
}

func (h *chaosHistory) judgeOne(k *chaosCase, s *chaosSummary, u *chaosUnlogged) error {
	owner := h.owner(k)
	switch k.client.reply {
	case replyWrong:
		return errors.New("the client got what is no answer to it")
	case replyWhole:
		return h.judgeServed(k, owner, s)
	case replyPart:
		if owner == nil {
			return errors.New("the client got part of an answer, and nobody has logged that it owns the connection")
		}
	}
	if k.done != nil {
		return fmt.Errorf("%s says that it has answered", h.lives[k.done.serial])
	}
	if owner != nil {
		return h.blame(k, owner, s)
	}
	return h.blameSilent(k, s, u)
}

func (h *chaosHistory) judgeServed(k *chaosCase, owner *chaosLife, s *chaosSummary) error {
	by := h.lives[k.client.servedBy]
	if owner == nil || owner.serial != by.serial {
		return fmt.Errorf("%s has answered, and has not logged that it owns the connection", by)
	}
	if k.done != nil && k.done.serial != by.serial {
		return fmt.Errorf("%w: %s has answered, too", errOwnedTwice, h.lives[k.done.serial])
	}
	if k.done == nil && !by.killed {
		return fmt.Errorf("%s has answered, and has not come to the end of it", by)
	}
	if k.isOnItsWayBack() {
		return fmt.Errorf("%w: %s has answered, and had handed it back", errOwnedTwice, by)
	}
	if j := k.before; j != nil {
		if taker := h.lives[j.claim.serial]; chaosReports(taker.endpoint) && j.passed == nil && !taker.killed && !k.giver.killed {
			return fmt.Errorf("%s has handed it back, and has not reported that", taker)
		}
	}
	if by.isGiver() {
		s.byGiver++
		return nil
	}
	if chaosReports(by.endpoint) && k.report == nil && !by.killed && !k.giver.killed {
		return fmt.Errorf("%s has answered, and has not reported the end", by)
	}
	s.byTaker++
	if k.after == nil {
		s.outlived++
	}
	return nil
}

// blame is for a connection that was lost by an owner that had logged it.
func (h *chaosHistory) blame(k *chaosCase, owner *chaosLife, s *chaosSummary) error {
	gone := k.backAfter != nil && k.backAfter.what == chaosGone
	if k.isOnItsWayBack() && (gone || !owner.killed || owner.killedAt > k.client.ended) {
		if g := k.giver; !g.killed || g.killedAt > k.client.ended || g.endedAt < k.back.at {
			return fmt.Errorf("it was handed back to %s, which was not killed and has not got it", g)
		}
		s.diedWithGiver++
		s.unloggedBack++
		return nil
	}
	if !owner.killed {
		return fmt.Errorf("the client got no answer from %s, which was not killed", owner)
	}
	if k.client.ended < owner.killedAt {
		return fmt.Errorf("the client saw the end %v before its owner, %s, was killed", time.Duration(owner.killedAt-k.client.ended), owner)
	}
	if owner.isGiver() {
		s.diedWithGiver++
	} else {
		s.diedWithTaker++
	}
	return nil
}

// blameSilent is for a connection whose owner has not logged that.
func (h *chaosHistory) blameSilent(k *chaosCase, s *chaosSummary, u *chaosUnlogged) error {
	if k.giver == nil {
		u.wantGiver(k)
		s.diedWithGiver++
		s.unloggedGiver++
		return nil
	}
	handed := k.after != nil && k.after.what == chaosHanded
	if !handed && k.giver.killed && k.giver.killedAt <= k.client.ended {
		s.diedWithGiver++ // in its hands; or on offer, and then a taker that claimed it was killed, too
		return nil
	}
	if k.offer == nil || k.after != nil && !handed {
		return fmt.Errorf("the client got no answer, and the connection was with %s", k.giver)
	}
	if !handed && !k.giver.killed {
		return fmt.Errorf("the client got no answer, and Handoff has not returned to %s", k.giver)
	}
	u.wantTaker(k)
	s.diedWithTaker++
	s.unloggedByTaker++
	return nil
}

// chaosUnlogged finds owners for connections whose owners have not logged them: a maximal matching, by
// augmenting paths. An acceptor is a goroutine that may have been about to log.
type chaosUnlogged struct {
	h         *chaosHistory
	lastClaim map[chaosAcceptor]int64
	wanted    []chaosWanted
}

type chaosAcceptor struct{ serial, goroutine int }

// chaosWanted is a connection that wants an owner, of these.
type chaosWanted struct {
	id   int
	from []chaosAcceptor
}

func (h *chaosHistory) lastClaims() map[chaosAcceptor]int64 {
	last := make(map[chaosAcceptor]int64)
	for _, events := range h.events {
		for _, e := range events {
			if e.what == chaosClaim {
				a := chaosAcceptor{e.serial, e.a}
				last[a] = max(last[a], e.at)
			}
		}
	}
	return last
}

// wantTaker asks for a taker at the endpoint of the last offer, alive after that and before Handoff
// returned.
func (u *chaosUnlogged) wantTaker(k *chaosCase) {
	until := int64(math.MaxInt64)
	if k.after != nil {
		until = k.after.at
	}
	w := chaosWanted{id: k.client.id}
	for _, l := range u.h.lives {
		if l.endpoint != k.offer.b || !l.killed || l.killedAt > k.client.ended || l.endedAt < k.offer.at || l.began > until {
			continue
		}
		for g := range chaosAcceptors {
			if a := (chaosAcceptor{l.serial, g}); u.lastClaim[a] < until {
				w.from = append(w.from, a)
			}
		}
	}
	u.wanted = append(u.wanted, w)
}

// wantGiver asks for a giver killed while there was the connection.
func (u *chaosUnlogged) wantGiver(k *chaosCase) {
	w := chaosWanted{id: k.client.id}
	for _, l := range u.h.lives {
		if l.isGiver() && l.killed && k.client.began < l.endedAt && l.killedAt <= k.client.ended {
			w.from = append(w.from, chaosAcceptor{l.serial, 0})
		}
	}
	u.wanted = append(u.wanted, w)
}

// unnamed returns the connections for which there is none.
func (u *chaosUnlogged) unnamed() (ids []int) {
	named := make(map[chaosAcceptor]int) // the connection that it is named for
	for i, w := range u.wanted {
		if !u.name(i, named, make(map[chaosAcceptor]bool)) {
			ids = append(ids, w.id)
		}
	}
	return ids
}

func (u *chaosUnlogged) name(i int, named map[chaosAcceptor]int, tried map[chaosAcceptor]bool) bool {
	for _, a := range u.wanted[i].from {
		if tried[a] {
			continue
		}
		tried[a] = true
		other, taken := named[a]
		if !taken || u.name(other, named, tried) {
			named[a] = i
			return true
		}
	}
	return false
}

// report tells all that is known of a problem: what the client saw, what every process logged, who that
// was and who else had the endpoints at which it was on offer, and the faults around.
func (h *chaosHistory) report(p chaosProblem) string {
	var b strings.Builder
	fmt.Fprintf(&b, "connection %d: %v (seed %d)\n", p.id, p.err, h.seed)
	if p.id == 0 {
		return b.String()
	}
	stamp := func(at int64) string { return time.Duration(at - h.lives[0].began).String() }
	from, until := int64(math.MaxInt64), int64(0)
	if i := slices.IndexFunc(h.clients, func(c *chaosClient) bool { return c.id == p.id }); i >= 0 {
		c := h.clients[i]
		from, until = c.began, c.ended
		fmt.Fprintf(&b, "  client from %s to %s: got %d bytes, %s, from process %d; %v\n", stamp(c.began), stamp(c.ended), c.got,
			[]string{"none", "part", "all", "wrong"}[c.reply], c.servedBy, c.err)
	}
	involved, offeredAt := make(map[int]bool), make(map[int]bool)
	for _, e := range h.events[p.id] {
		from, until = min(from, e.at), max(until, e.at)
		involved[e.serial] = true
		if e.what == chaosOffer {
			offeredAt[e.b] = true
		}
		fmt.Fprintf(&b, "  %s %s: %s %d %d %d %s\n", stamp(e.at), h.lives[e.serial], e.what, e.a, e.b, e.c, e.text)
	}
	for _, l := range h.lives {
		if !involved[l.serial] && !(offeredAt[l.endpoint] && l.began <= until && l.endedAt >= from) {
			continue
		}
		end := "lived until " + stamp(l.endedAt)
		if l.killed {
			end = "was killed at " + stamp(l.killedAt)
		}
		fmt.Fprintf(&b, "  %s was started at %s and %s\n", l, stamp(l.began), end)
	}
	const around = int64(200 * time.Millisecond)
	for _, f := range slices.SortedFunc(slices.Values(h.faults), func(a, b chaosHappening) int { return cmp.Compare(a.from, b.from) }) {
		if f.until >= from-around && f.from <= until+around {
			fmt.Fprintf(&b, "  fault: %s: %s from %s to %s (%v, %d)\n", f.kind, f.to, stamp(f.from), stamp(f.until), f.fault.length, f.fault.number)
		}
	}
	return b.String()
}
