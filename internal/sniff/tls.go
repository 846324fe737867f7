package sniff

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
)

// ErrNotTLS means that the bytes cannot begin a TLS handshake. Any other error of [TLS] but [ErrShort] means that they begin one which
// nobody should serve.
var ErrNotTLS = errors.New("sniff: not TLS")

// malformedHello is the verdict on a ClientHello that breaks the rules; its text says which.
type malformedHello string

func (e malformedHello) Error() string { return "sniff: malformed ClientHello: " + string(e) }

const (
	errRecordLength   malformedHello = "record longer than 16 KiB"
	errRecordEmpty    malformedHello = "record without payload"
	errRecordType     malformedHello = "record of another kind inside"
	errMessageType    malformedHello = "another handshake message in its place"
	errMessageLength  malformedHello = "longer than 64 KiB"
	errCut            malformedHello = "ends inside a field"
	errSessionID      malformedHello = "session ID longer than 32 bytes"
	errSuites         malformedHello = "bad list of cipher suites"
	errCompression    malformedHello = "no compression method"
	errExtensions     malformedHello = "lengths of extensions do not add up"
	errManyExtensions malformedHello = "too many extensions"
	errTwice          malformedHello = "an extension is there twice"
	errNameList       malformedHello = "bad server_name extension"
	errServerName     malformedHello = "server name is not a host name"
	errALPN           malformedHello = "bad list of ALPN protocols"
	errVersions       malformedHello = "bad list of versions"
	errECH            malformedHello = "bad encrypted_client_hello extension"
)

// Hello is what a ClientHello says about where its connection should go.
type Hello struct {
	// ServerName is the name of the server (SNI) in the form of [Request].Host; empty if there is none. It may be an IP address.
	ServerName string
	// ALPN are the protocols that the client offers, as sent and in its order; nil if it offers none. They can hold any bytes.
	ALPN []string
	// Versions are the versions of TLS that the client offers, in its order, as 0x0304 for TLS 1.3. Without a supported_versions
	// extension it is the one highest version. Values that only exercise servers (GREASE, RFC 8701) are left out.
	Versions []uint16
	// ECH means that an encrypted ClientHello is inside, and ServerName is the outer name: that of the server that can decrypt it. Some
	// clients always send one, filled by chance if need be, so that nobody can tell.
	ECH bool
}

// Lengths in bytes.
const (
	recordHeader  = 5
	maxRecord     = 1 << 14 // RFC 8446, section 5.1
	messageHeader = 4
	maxSessionID  = 32
	randomLength  = 32
)

// Numbers on the wire, by the names that their registries give them.
const (
	recordHandshake    = 22
	messageClientHello = 1
	nameTypeHost       = 0
	echOuter           = 0
	echInner           = 1

	extServerName        = 0
	extALPN              = 16
	extSupportedVersions = 43
	extECH               = 0xfe0d
)

// maxExtensions bounds the search for one that is there twice. It is more than there are registered; browsers send about 20.
const maxExtensions = 128

// TLS reads a ClientHello (RFC 8446, section 4.1.2, and its forebears back to SSL 3.0) from the first bytes of a connection. It may be
// spread over any number of records (section 5.1), and be 64 KiB long.
//
// It is strict where that protects the choice of a backend: whatever two servers could understand differently is an error, such as an
// extension that is there twice. Of the extensions it looks into those alone that Hello tells of. What follows the ClientHello is not
// looked at.
//
// An IP address as server name breaks RFC 6066, section 3. Clients send it all the same when they are given an address, and OpenSSL, Go
// and nginx let it pass, so it is a host like any other here. The old ClientHello of SSL 2.0 is not TLS.
func TLS(b []byte) (Hello, error) {
	body, err := clientHello(b)
	if err != nil {
		return Hello{}, err
	}
	return parseHello(body)
}

// clientHello returns the body of the ClientHello. It aliases b if the ClientHello is in one record; if not, the records are only joined
// when the last of them is there, so that a client that sends byte by byte costs no memory.
func clientHello(b []byte) ([]byte, error) {
	var header [messageHeader]byte // records may cut that too
	size := 0
	rest := b
	for {
		payload, whole, err := record(rest)
		if err == ErrNotTLS && size > 0 {
			err = errRecordType
		}
		if err != nil {
			return nil, err
		}
		if size < messageHeader {
			copy(header[size:], payload)
		}
		size += len(payload)
		length, err := messageLength(header[:min(size, messageHeader)])
		switch {
		case err == nil && len(payload) == size && size >= length:
			return payload[messageHeader:length], nil
		case err == nil && size >= length:
			return joinRecords(b, length)[messageHeader:], nil
		case err != nil && err != ErrShort:
			return nil, err
		case !whole:
			return nil, ErrShort
		}
		rest = rest[recordHeader+len(payload):]
	}
}

// record returns the payload of the handshake record at the start of b, or what there is of it; whole tells which. The minor version is
// anyone's choice: servers must ignore it, and clients have sent several.
func record(b []byte) (payload []byte, whole bool, err error) {
	if (len(b) > 0 && b[0] != recordHandshake) || (len(b) > 1 && b[1] != 3) {
		return nil, false, ErrNotTLS
	}
	if len(b) > 3 && b[3] > maxRecord>>8 {
		return nil, false, errRecordLength
	}
	if len(b) < recordHeader {
		return nil, false, ErrShort
	}
	length := int(binary.BigEndian.Uint16(b[3:]))
	if length == 0 {
		return nil, false, errRecordEmpty
	}
	if length > maxRecord {
		return nil, false, errRecordLength
	}
	payload = b[recordHeader:]
	if len(payload) < length {
		return payload, false, nil
	}
	return payload[:length], true, nil
}

// messageLength returns the length of the ClientHello with its header. Its first byte that is not zero would make it 64 KiB.
func messageLength(header []byte) (int, error) {
	if len(header) > 0 && header[0] != messageClientHello {
		return 0, errMessageType
	}
	if len(header) > 1 && header[1] != 0 {
		return 0, errMessageLength
	}
	if len(header) < messageHeader {
		return 0, ErrShort
	}
	return messageHeader + int(binary.BigEndian.Uint16(header[2:])), nil
}

// joinRecords returns the first n bytes of what the records in b carry. They must be there.
func joinRecords(b []byte, n int) []byte {
	joined := make([]byte, 0, n)
	for len(joined) < n {
		payload, _, _ := record(b)
		joined = append(joined, payload[:min(len(payload), n-len(joined))]...)
		b = b[recordHeader+len(payload):]
	}
	return joined
}

func parseHello(body []byte) (Hello, error) {
	in := fields{rest: body}
	version := in.uint16()
	in.take(randomLength)
	session, suites, compression := in.vector8(), in.vector16(), in.vector8()
	switch {
	case in.cut:
		return Hello{}, errCut
	case len(session) > maxSessionID:
		return Hello{}, errSessionID
	case len(suites) == 0 || len(suites)%2 != 0:
		return Hello{}, errSuites
	case len(compression) == 0:
		return Hello{}, errCompression
	}
	var h Hello
	if len(in.rest) > 0 { // before TLS 1.3 a ClientHello may end here
		extensions := in.vector16()
		if in.cut || len(in.rest) > 0 {
			return Hello{}, errExtensions
		}
		if err := h.readExtensions(extensions); err != nil {
			return Hello{}, err
		}
	}
	if h.Versions == nil {
		h.Versions = []uint16{version}
	}
	return h, nil
}

func (h *Hello) readExtensions(b []byte) error {
	var kinds [maxExtensions]uint16
	in := fields{rest: b}
	for n := 0; len(in.rest) > 0; n++ {
		kind, data := in.uint16(), in.vector16()
		switch {
		case in.cut:
			return errExtensions
		case slices.Contains(kinds[:n], kind):
			return errTwice
		case n == maxExtensions:
			return errManyExtensions
		}
		kinds[n] = kind
		if err := h.readExtension(kind, data); err != nil {
			return err
		}
	}
	return nil
}

func (h *Hello) readExtension(kind uint16, data []byte) (err error) {
	switch kind {
	case extServerName:
		h.ServerName, err = serverName(data)
	case extALPN:
		h.ALPN, err = protocols(data)
	case extSupportedVersions:
		h.Versions, err = versions(data)
	case extECH:
		h.ECH, err = outerECH(data)
	}
	return err
}

// serverName reads a list that holds exactly one host name. RFC 6066 would allow names of other types beside it, but none were ever
// defined; servers differ on whether to pass over them, and OpenSSL and BoringSSL do not.
func serverName(data []byte) (string, error) {
	in := fields{rest: data}
	list := fields{rest: in.vector16()}
	kind, name := list.uint8(), list.vector16()
	if in.cut || list.cut || len(in.rest) > 0 || len(list.rest) > 0 || kind != nameTypeHost {
		return "", errNameList
	}
	host, err := sniHost(name)
	if err != nil {
		return "", errServerName
	}
	return host, nil
}

// sniHost normalises a server name, which has no port: a colon can only be that of an IPv6 address, with or without brackets.
func sniHost(name []byte) (string, error) {
	if bytes.IndexByte(name, ':') < 0 {
		return domainName(name)
	}
	if inside, found := bytes.CutPrefix(name, []byte("[")); found {
		if name, found = bytes.CutSuffix(inside, []byte("]")); !found {
			return "", errHost
		}
	}
	return addressV6(name)
}

// protocols reads the list of RFC 7301, section 3.1.
func protocols(data []byte) ([]string, error) {
	in := fields{rest: data}
	list := in.vector16()
	if in.cut || len(in.rest) > 0 || len(list) == 0 {
		return nil, errALPN
	}
	n := 0
	for each := (fields{rest: list}); len(each.rest) > 0; n++ {
		if name := each.vector8(); len(name) == 0 { // as it also is when cut
			return nil, errALPN
		}
	}
	names := make([]string, n)
	each := fields{rest: list}
	for i := range names {
		names[i] = protocolName(each.vector8())
	}
	return names, nil
}

// protocolName makes a string of an ALPN protocol, without memory for the usual ones.
func protocolName(b []byte) string {
	switch string(b) {
	case "h2":
		return "h2"
	case "http/1.1":
		return "http/1.1"
	}
	return string(b)
}

// versions reads the list of RFC 8446, section 4.2.1. What it returns is not nil, though it may be empty.
func versions(data []byte) ([]uint16, error) {
	in := fields{rest: data}
	list := in.vector8()
	if in.cut || len(in.rest) > 0 || len(list) == 0 || len(list)%2 != 0 {
		return nil, errVersions
	}
	found := make([]uint16, 0, len(list)/2)
	for ; len(list) > 0; list = list[2:] {
		if v := binary.BigEndian.Uint16(list); !isGREASE(v) {
			found = append(found, v)
		}
	}
	return found, nil
}

// isGREASE tells the values 0x0a0a, 0x1a1a, … 0xfafa.
func isGREASE(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// outerECH reads the extension of RFC 9849, section 5. An inner one is in a ClientHello that was decrypted on its way: the server name
// beside it is the true one.
func outerECH(data []byte) (bool, error) {
	in := fields{rest: data}
	kind := in.uint8()
	if kind == echInner && len(in.rest) == 0 {
		return false, nil
	}
	in.take(5) // cipher suite and number of the configuration
	in.vector16()
	payload := in.vector16()
	if kind != echOuter || in.cut || len(in.rest) > 0 || len(payload) == 0 {
		return false, errECH
	}
	return true, nil
}

// fields takes the fields of a structure of TLS (RFC 8446, section 3) from the front of its bytes. Where they end too early it says cut,
// and gives zeros and nothing from then on. What it gives aliases the bytes.
type fields struct {
	rest []byte
	cut  bool
}

func (f *fields) take(n int) []byte {
	if n > len(f.rest) {
		f.cut, f.rest = true, nil
		return nil
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) uint8() uint8 {
	if b := f.take(1); !f.cut {
		return b[0]
	}
	return 0
}

func (f *fields) uint16() uint16 {
	if b := f.take(2); !f.cut {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (f *fields) vector8() []byte  { return f.take(int(f.uint8())) }
func (f *fields) vector16() []byte { return f.take(int(f.uint16())) }
