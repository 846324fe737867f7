// Package sniff learns from the first bytes of a connection what the client wants, so that a front door can choose who serves it.
//
// [Sniff] tells TLS, HTTP/1.x and HTTP/2 apart and says what they ask for; [TLS], [HTTP1] and [HTTP2] read each of them. [Proxy] reads the
// header that a proxy in front may send before all that.
//
// It is pure: bytes in, verdict out, no I/O and no state. A door reads, asks, and reads on for as long as the answer is [ErrShort].
// A verdict is final: whatever bytes follow those that led to it, the verdict stays the same. So it does not matter how the network
// cut the stream into pieces.
package sniff
