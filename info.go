package usher

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// Info is what the giver learnt of a connection and tells the taker. All of it is the giver's word.
// The zero value says nothing.
type Info struct {
	// ID is the giver's name for the connection, by which the logs of giver and taker can be brought
	// together.
	ID string

	// Route is the giver's name for the rule by which it chose this taker.
	Route string

	// Listener is the giver's name for where it accepted the connection. Of one that has it, givers at the same endpoint may stand in for
	// each other when it is handed back; see [Offer.HandBack].
	Listener string

	// ServerName is the host that the client named in its TLS ClientHello (RFC 6066 section 3).
	ServerName string

	// ALPN are the protocols that the client offered there, in its order (RFC 7301).
	ALPN []string

	// Host and Path are those of the first HTTP request.
	Host, Path string

	// Client is the client's address where the connection came through a proxy that told it;
	// otherwise it is not valid, and the connection's RemoteAddr is the client.
	Client netip.AddrPort

	// State is for an application that hands its own connections to its successor: whatever that needs to go
	// on with this one. It comes with the connection, so that whoever owns the one has the other. All of the
	// Info together has room for 64 KiB.
	State []byte
}

// Fields of an offer's info on the wire: field:u8 length:u16 value. SPEC.md lists them. A reader skips
// those it does not know.
const (
	fieldRoute      = 1
	fieldServerName = 2
	fieldALPN       = 3 // once for each protocol
	fieldHost       = 4
	fieldPath       = 5
	fieldClient     = 6
	fieldLocal      = 7 // the connection's addresses, for a taker to which the kernel no longer tells them
	fieldRemote     = 8
	fieldID         = 9
	fieldListener   = 10
	fieldState      = 11
)

const (
	fieldHeadLen = 3
	maxInfo      = 1<<16 - 1
)

// encodeInfo returns info and the connection's addresses as an offer carries them.
func encodeInfo(info *Info, local, remote netip.AddrPort) ([]byte, error) {
	b := make([]byte, 0, 128)
	b = appendField(b, fieldID, info.ID)
	b = appendField(b, fieldRoute, info.Route)
	b = appendField(b, fieldListener, info.Listener)
	b = appendField(b, fieldServerName, info.ServerName)
	for _, p := range info.ALPN {
		b = appendField(b, fieldALPN, p)
	}
	b = appendField(b, fieldHost, info.Host)
	b = appendField(b, fieldPath, info.Path)
	b = appendAddr(b, fieldClient, info.Client)
	b = appendAddr(b, fieldLocal, local)
	b = appendAddr(b, fieldRemote, remote)
	b = appendField(b, fieldState, info.State)
	if len(b) > maxInfo {
		return nil, fmt.Errorf("the info has %d bytes, limit %d", len(b), maxInfo)
	}
	return b, nil
}

// appendField leaves empty values out. One that is too long for its length field makes the whole too
// long, which the caller checks.
func appendField[T string | []byte](b []byte, field byte, value T) []byte {
	if len(value) == 0 {
		return b
	}
	b = append(b, field)
	b = binary.LittleEndian.AppendUint16(b, uint16(min(len(value), maxInfo)))
	return append(b, value...)
}

func appendAddr(b []byte, field byte, a netip.AddrPort) []byte {
	if !a.IsValid() { // of a connection that is not TCP, or whose address nobody knows
		return b
	}
	at := len(b)
	b = append(b, field, 0, 0)
	b = a.AppendTo(b)
	binary.LittleEndian.PutUint16(b[at+1:], uint16(len(b)-at-fieldHeadLen))
	return b
}

// addrPort returns the address of a TCP connection as it travels; not valid for any other.
func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}

// decodeInfo reads what encodeInfo wrote, from a peer.
func decodeInfo(b []byte) (info Info, local, remote netip.AddrPort, err error) {
	for at := 0; at < len(b); {
		if len(b)-at < fieldHeadLen {
			return info, local, remote, fmt.Errorf("the info ends within a field at byte %d", at)
		}
		field, n := b[at], int(binary.LittleEndian.Uint16(b[at+1:]))
		start := at + fieldHeadLen
		if len(b)-start < n {
			return info, local, remote, fmt.Errorf("field %d of the info, at byte %d, has %d bytes and says %d", field, at, len(b)-start, n)
		}
		value := b[start : start+n]
		at = start + n
		switch field {
		case fieldRoute:
			info.Route = string(value)
		case fieldServerName:
			info.ServerName = string(value)
		case fieldALPN:
			info.ALPN = append(info.ALPN, string(value))
		case fieldHost:
			info.Host = string(value)
		case fieldPath:
			info.Path = string(value)
		case fieldClient:
			err = decodeAddr(value, &info.Client)
		case fieldLocal:
			err = decodeAddr(value, &local)
		case fieldRemote:
			err = decodeAddr(value, &remote)
		case fieldID:
			info.ID = string(value)
		case fieldListener:
			info.Listener = string(value)
		case fieldState:
			info.State = bytes.Clone(value)
		}
		if err != nil {
			return info, local, remote, fmt.Errorf("field %d of the info: %w", field, err)
		}
	}
	return info, local, remote, nil
}

// reportedInfo returns a copy of an offer's info for the report: without the state, which may be large, and which its giver
// knows, and not holding on to the prefix behind it. info was decoded before.
func reportedInfo(info []byte) []byte {
	kept := make([]byte, 0, len(info))
	for len(info) > 0 {
		end := fieldHeadLen + int(binary.LittleEndian.Uint16(info[1:]))
		if info[0] != fieldState {
			kept = append(kept, info[:end]...)
		}
		info = info[end:]
	}
	return kept
}

func decodeAddr(value []byte, into *netip.AddrPort) (err error) {
	*into, err = netip.ParseAddrPort(string(value))
	return err
}
