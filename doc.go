// Package usher hands live connections from one process to another, so that each has exactly one
// owner at every instant, whoever dies when.
//
// The process that has a connection is the giver, the one that shall have it the taker. The taker
// listens, and receives through a [net.Listener]:
//
//	l, err := usher.Listen("shop")
//	err = http.Serve(l, handler)
//
// The giver dials, wraps the connection in an offer, and hands it over:
//
//	t, err := usher.Dial(ctx, "shop")
//	o, err := usher.NewOffer(conn, prefix, usher.Info{Host: "shop.example.com"}) // prefix: what was read from conn
//	if err := t.Handoff(ctx, o); err != nil {
//		conn, err := o.Reclaim() // still ours, not a byte lost: serve it here, refuse it, or offer it to another
//	}
//
// From then on client and taker talk through the kernel alone.
//
// # The promise
//
//   - One owner. The giver does no I/O on the connection from the offer until its outcome; the taker
//     does none before it has claimed it.
//   - Two outcomes. [Target.Handoff] returns nil if and only if the taker has claimed the connection.
//     On every error the giver still owns it, whole, and may offer it elsewhere: whether the taker
//     declined, is slow, is stopped, was killed, closed, or broke the protocol.
//   - Bounded. Handoff returns when its context ends, also when the taker is stopped.
//   - The giver may die. What was claimed is untouched; an offer that has reached the taker is
//     served by it, unless the taker declines it or closes: there is nobody to give it back to then.
//   - The stream is whole. The taker reads the prefix, then what the kernel holds. A client that has
//     half-closed its connection, reset it, or never sent a byte is handed over like any other: the
//     taker reads what there is, then io.EOF, ECONNRESET, or nothing until its deadline.
//   - The end arrives. [Conn.Close] ends the connection for the client at once, though a copy of the
//     descriptor may still be on its way.
//
// The promise is kept by memory that both processes share: each offer is a ticket there, torn by
// exactly one compare-and-swap, either the taker's claim or the giver's withdrawal. No message has to
// arrive for that, and neither side needs the other to be running. doc/ownership.md tells how,
// doc/faults.md what happens when either side dies at each step, SPEC.md how to do the same in another
// language. A peer that uses a connection without having claimed it can break the promise; both sides
// admit only the same user and root unless told otherwise.
//
// # Flow
//
// A taker's [Listener.Accept] is what claims. Until then an offer waits in the taker, [MaxOpen] at
// most from one channel; further calls of Handoff wait, each no longer than its context. One slow
// taker delays no other. A taker that has no room, or is out of descriptors, declines: [ErrDeclined].
//
// A giver that would rather not have a goroutine wait for each connection offers with [Target.TryHandoff], to targets
// that are [Dialer.Patient], and calls Handoff only where that returns false.
//
// # Reports
//
// A giver that wants to know when a connection has ended that it handed over, after how long and how many
// bytes, sets [Dialer.Ended]. The taker's [Conn] counts, and reports when it is closed.
//
// # Back to the giver
//
// A taker can hand a connection back to the giver that it came from, if that wants it ([Dialer.Returned]): [Offer.HandBack]. The promise
// holds for that as for any handover.
//
//	o, err := usher.NewOffer(conn, unused, conn.Info()) // unused: what was read from conn, and is for whoever serves it next
//	err = o.HandBack(ctx)
//
// A giver that ends while its connections live can leave its channels to a successor, for what takers report and hand back:
// [Target.Detach] and [Dialer.Attach].
//
// # Channels
//
// Two processes that have an [ipc.Conn] between them need no endpoint: [ListenConfig.ListenOn] and [Dialer.DialOn].
//
// # Endpoints, security, systems
//
// Endpoints are those of package ipc, and so is who is admitted. Linux, macOS, FreeBSD, OpenBSD,
// NetBSD and Windows are supported; elsewhere every function returns an error that is
// [errors.ErrUnsupported].
//
// # Errors
//
// What fails for being closed is [net.ErrClosed], for its context's deadline [os.ErrDeadlineExceeded],
// both through [errors.Is]; others are a [*net.OpError] with the operation and the endpoint.
package usher
