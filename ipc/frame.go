package ipc

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// The wire format, version 1; SPEC.md tells it to other languages. All integers are little-endian.
//
//	frame  = header table data
//	header = "USH" version:u8  table:u32  data:u32  count:u16  0:u16     (lengths in bytes)
//	table  = count entries
//	entry  = kind:u8 0:u8 body:u16 name:u16 0:u16  body name             (lengths in bytes)
//
// On Unix an entry's body is empty: the descriptors travel as one SCM_RIGHTS message with the first
// byte of the frame. On Windows the body is what the receiver makes the handle from.
const (
	wireVersion = 1
	headerLen   = 16
	entryLen    = 8
	maxBody     = 1024 // a WSAPROTOCOL_INFOW is 628 bytes
	maxName     = 4096 // PATH_MAX on Linux
)

// DefaultMaxData and DefaultMaxAttachments hold where [Limits] has zeroes. No message can have more
// than MaxAttachments, which is what Linux takes in one sendmsg (SCM_MAX_FD in unix(7)).
const (
	DefaultMaxData        = 16 << 20
	DefaultMaxAttachments = 64
	MaxAttachments        = 253
	maxData               = 1 << 30 // with a table the sum still fits an int of 32 bits
)

// Limits bound the messages of a channel, those sent and those received. The zero value means the
// defaults. A message over them is refused by Send with [ErrTooLarge]; a peer that announces one
// breaks the protocol, before any memory is taken for it.
type Limits struct {
	Data        int // bytes of Message.Data; at most 1 GiB
	Attachments int // at most MaxAttachments
}

func (l Limits) withDefaults() Limits {
	if l.Data <= 0 {
		l.Data = DefaultMaxData
	}
	if l.Attachments <= 0 {
		l.Attachments = DefaultMaxAttachments
	}
	l.Data = min(l.Data, maxData)
	l.Attachments = min(l.Attachments, MaxAttachments)
	return l
}

// kind is the sender's word on what an entry is. On Unix the kernel knows better and is believed.
type kind uint8

const (
	kindSocket kind = 1
	kindFile   kind = 2
)

type header struct {
	table, data uint32
	count       uint16
}

func (h header) size() int { return int(h.table) + int(h.data) }

func (h header) put(b []byte) {
	copy(b, "USH")
	b[3] = wireVersion
	binary.LittleEndian.PutUint32(b[4:], h.table)
	binary.LittleEndian.PutUint32(b[8:], h.data)
	binary.LittleEndian.PutUint16(b[12:], h.count)
	binary.LittleEndian.PutUint16(b[14:], 0)
}

// parseHeader reads the headerLen bytes of b and checks every length against the limits, so that
// nothing is allocated on a peer's word alone.
func parseHeader(b []byte, limits Limits) (header, error) {
	if string(b[:3]) != "USH" {
		return header{}, fmt.Errorf("%w: frame starts with %q, want \"USH\"", ErrProtocol, b[:3])
	}
	if b[3] != wireVersion {
		return header{}, fmt.Errorf("%w: peer speaks version %d of the protocol, this program version %d",
			ErrProtocol, b[3], wireVersion)
	}
	h := header{
		table: binary.LittleEndian.Uint32(b[4:]),
		data:  binary.LittleEndian.Uint32(b[8:]),
		count: binary.LittleEndian.Uint16(b[12:]),
	}
	if reserved := binary.LittleEndian.Uint16(b[14:]); reserved != 0 {
		return header{}, fmt.Errorf("%w: reserved field of the header is %#x, want 0", ErrProtocol, reserved)
	}
	if int64(h.data) > int64(limits.Data) {
		return header{}, fmt.Errorf("%w: message of %d bytes, limit %d", ErrProtocol, h.data, limits.Data)
	}
	if int(h.count) > limits.Attachments {
		return header{}, fmt.Errorf("%w: message with %d attachments, limit %d", ErrProtocol, h.count, limits.Attachments)
	}
	shortest, longest := uint32(h.count)*entryLen, uint32(h.count)*(entryLen+maxBody+maxName)
	if h.table < shortest || h.table > longest {
		return header{}, fmt.Errorf("%w: table of %d bytes for %d attachments", ErrProtocol, h.table, h.count)
	}
	return h, nil
}

type entry struct {
	kind kind
	body []byte
	name string
}

func (e entry) append(b []byte) []byte {
	b = append(b, byte(e.kind), 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(e.body)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(e.name)))
	b = append(b, 0, 0)
	b = append(b, e.body...)
	return append(b, e.name...)
}

// parseTable reads count entries from b, all of it. On an error it returns the entries before the
// bad one, whose handles may have to be closed. The bodies alias b.
func parseTable(b []byte, count int) ([]entry, error) {
	if count == 0 && len(b) == 0 {
		return nil, nil
	}
	entries := make([]entry, 0, count)
	for i := range count {
		if len(b) < entryLen {
			return entries, fmt.Errorf("%w: table ends in entry %d of %d", ErrProtocol, i, count)
		}
		e := entry{kind: kind(b[0])}
		bodyLen := int(binary.LittleEndian.Uint16(b[2:]))
		nameLen := int(binary.LittleEndian.Uint16(b[4:]))
		if b[1] != 0 || b[6] != 0 || b[7] != 0 {
			return entries, fmt.Errorf("%w: reserved bytes of entry %d are not 0", ErrProtocol, i)
		}
		if e.kind != kindSocket && e.kind != kindFile {
			return entries, fmt.Errorf("%w: entry %d has the unknown kind %d", ErrProtocol, i, e.kind)
		}
		if bodyLen > maxBody || nameLen > maxName {
			return entries, fmt.Errorf("%w: entry %d has a body of %d bytes (limit %d) and a name of %d (limit %d)",
				ErrProtocol, i, bodyLen, maxBody, nameLen, maxName)
		}
		b = b[entryLen:]
		if len(b) < bodyLen+nameLen {
			return entries, fmt.Errorf("%w: table ends in entry %d of %d", ErrProtocol, i, count)
		}
		e.body, e.name = b[:bodyLen:bodyLen], string(b[bodyLen:bodyLen+nameLen])
		if strings.IndexByte(e.name, 0) >= 0 {
			return entries, fmt.Errorf("%w: the name of entry %d has a zero byte", ErrProtocol, i)
		}
		b = b[bodyLen+nameLen:]
		entries = append(entries, e)
	}
	if len(b) != 0 {
		return entries, fmt.Errorf("%w: %d bytes after the last of %d entries", ErrProtocol, len(b), count)
	}
	return entries, nil
}
