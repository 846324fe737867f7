// Package route is the front door's table of routes: it tells which of them a connection takes, from what
// the first bytes and the sockets say. It does no I/O.
//
// # How matching works
//
// A route matches a connection when everything matches that it names: host, path, ALPN, listener and
// client network. What it leaves out matches everything. Where several routes match, the most specific one
// wins, whatever their order in the file. These are compared one after the other, until one decides:
//
//  1. the host: its exact name, then the longest wildcard, then none. "*.example.com" stands for one or
//     more labels in front of example.com, and is not example.com itself;
//  2. the path: the longest, then none;
//  3. the ALPN: the protocol that the client put first, then none;
//  4. the listener: its name, then none;
//  5. the client's network: the smallest, then none.
//
// An exact host comes before a wildcard even where it has no route that fits otherwise: then the routes of
// the next best host are tried, down to those without a host. Two routes can never be equal in all five,
// since [New] refuses such a table.
//
// # Paths
//
// A path is compared by whole segments, and case matters: "/api" matches /api, /api/ and /api/x, and not
// /apis; "/api/" matches /api/ and /api/x, and not /api; "/" matches every path. Percent-encoding makes no
// difference, so that /%61pi is /api, but for what the next paragraph says of slashes. A route with a path
// matches no connection whose path is unknown, such as one over TLS, and not the "*" of OPTIONS.
//
// Servers do not agree on what some paths mean: is //api the same as /api? Is /a%2Fb, /a\b, /a;v=1 or
// /a/./b? The door must not have an opinion of its own, or a client could write a path for which the door
// chooses a backend by one meaning and the backend answers by another. So such a path is read in all these
// ways, and has a route only if every reading leads to the same one: //x/y does where nothing but "/" is
// there for it, and not beside a route for "/x". What contains "..", in whatever disguise, a zero byte, or a
// malformed escape has a route only where none of the host's routes has a path longer than "/". Browsers and
// ordinary clients send nothing of the kind. What then has no route is [Ambiguous], and does not fall back to
// a less specific one.
//
// # Routing is no access control
//
// A route decides where a connection goes, by its first request alone. On a connection that has been handed
// over the client may go on and ask for any path and any host, and the door is not there to see it. A
// backend must itself refuse what it does not want to serve.
package route
