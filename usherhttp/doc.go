// Package usherhttp serves HTTP with package net/http on connections that a front door hands over, and lets the process
// that does so come and go without a client noticing.
//
//	l, err := (&usher.ListenConfig{Replace: true}).Listen("shop")
//	err = usherhttp.Serve(ctx, l, &http.Server{Handler: mux})
//
// serves until ctx ends, or until another process listens at the endpoint in this one's place. Then what is not claimed
// goes back to the door, requests under way are answered, and connections on which no request is under way are
// handed on instead of being closed: to the process that has taken the endpoint over, or else back to the door, which hands
// them to whoever serves their next request. [http.Server.Shutdown] would close them, and a client that sends a
// request in that instant would get no answer.
//
// [Misdirected] is for a client that asks, on a connection it has open already, for a host that another backend serves, as clients do that
// pool connections by address: the request goes back to the door with its connection, which routes it anew.
//
// # Where a request begins
//
// A connection can only be handed on between two requests: with all bytes that have been read of the next, and none of
// the last. net/http does not tell where that is, and reads ahead. So package usherhttp follows what net/http
// reads, and lets no read go beyond the end of a request's head or body: of the next request net/http's buffers never have
// a byte that this package has not kept.
//
// Where two readers of HTTP disagree on where a request ends, one can be made to take what a client has sent as a body
// for a request (RFC 9112 section 11.2). Hence a connection is only handed on if all its requests were
// framed beyond doubt, and its handler has got each as it was followed: otherwise it is served as net/http would
// serve it, and closed in the end. In doubt is what HTTP allows and hardly any client sends: more than one of Content-Length and
// Transfer-Encoding, or a transfer coding other than chunked; header lines that are continued in the next; empty lines before a
// request; trailers and chunk extensions; CONNECT; OPTIONS *, which net/http answers itself; heads of more than 64 KiB; and all that is
// not HTTP/1.0 or HTTP/1.1, as what is within TLS.
package usherhttp
