package door

import (
	"context"
	"log/slog"
	"net/netip"
	"strconv"
	"time"

	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/sniff"
)

// nextID returns a name for a connection that no other one has, of this run of the door or another.
func (d *Door) nextID() string {
	return d.id + "-" + strconv.FormatUint(d.serial.Add(1), 36)
}

// finished counts and logs what became of c at the door. err is the reason where no target got it.
func (c *conn) finished(outcome admin.Outcome, err error) {
	route := noRoute
	stats := c.door.stats.route(noRoute)
	if c.route != nil {
		route, stats = c.route.name, c.route.stats
	}
	stats.count(c.settings.Name, outcome)
	reason := ""
	if err != nil {
		reason = err.Error()
		c.door.refusals.add(admin.Refusal{
			Time: time.Now(), Client: c.client.String(), Listener: c.settings.Name, Host: c.seen.Host,
			Route: route, Outcome: outcome, Reason: reason,
		})
	}
	if !c.door.logsAccess() {
		return
	}
	attrs := make([]slog.Attr, 0, 13)
	if c.id != "" {
		attrs = append(attrs, slog.String("id", c.id))
	}
	attrs = append(attrs, slog.String("listener", c.settings.Name), slog.String("client", c.client.String()))
	if c.client != c.peer {
		attrs = append(attrs, slog.String("peer", c.peer.String()))
	}
	if c.origin.pid != 0 {
		attrs = append(attrs, c.origin.attr())
	}
	if c.seen.Protocol != sniff.Unknown {
		attrs = append(attrs, slog.String("protocol", c.seen.Protocol.String()))
	}
	if c.seen.Host != "" {
		attrs = append(attrs, slog.String("host", c.seen.Host))
	}
	if c.route != nil {
		attrs = append(attrs, slog.String("route", route))
	}
	if c.target != "" {
		attrs = append(attrs, slog.String("target", c.target))
	}
	attrs = append(attrs, slog.String("outcome", string(outcome)), slog.Duration("peek", c.peek))
	if outcome == admin.HandedOver {
		attrs = append(attrs, slog.Duration("handover", c.handover))
	}
	if reason == "" && len(c.failed) > 0 { // it has a target, and not the first one
		attrs = append(attrs, slog.String("before", reasons(c.failed)))
	}
	if reason != "" {
		attrs = append(attrs, slog.String("reason", reason))
	}
	c.door.log.LogAttrs(context.Background(), slog.LevelInfo, "connection", attrs...)
}

// ending is what is known of a connection that was handed over or proxied when it has ended.
type ending struct {
	id, host, target string
	client           netip.AddrPort
	received, sent   int64 // from and to the client; -1 where nobody knows
	lasted           time.Duration
	handedOn         bool  // by the taker, to another process: this is what it has seen of it
	err              error // that ended it, where the door knows
}

// ended counts and logs an ending. The route may be one that a reload has taken away.
func (d *Door) ended(route string, e ending) {
	if stats := d.stats.routes.find(route); stats != nil {
		stats.hasEnded(e.received, e.sent, e.lasted)
	}
	if !d.logsAccess() {
		return
	}
	attrs := []slog.Attr{
		slog.String("id", e.id), slog.String("client", e.client.String()), slog.String("host", e.host),
		slog.String("route", route), slog.String("target", e.target), slog.Duration("lasted", e.lasted),
	}
	if e.received >= 0 {
		attrs = append(attrs, slog.Int64("received", e.received))
	}
	if e.sent >= 0 {
		attrs = append(attrs, slog.Int64("sent", e.sent))
	}
	if e.handedOn {
		attrs = append(attrs, slog.Bool("handed_on", true))
	}
	if e.err != nil {
		attrs = append(attrs, slog.String("error", e.err.Error()))
	}
	d.log.LogAttrs(context.Background(), slog.LevelInfo, "ended", attrs...)
}

func (d *Door) logsAccess() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.plan.config.Log.Access
}
