package sniff

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestTLSOfRealClients(t *testing.T) {
	usual := []string{"h2", "http/1.1"}
	all := []uint16{tls.VersionTLS13, tls.VersionTLS12, tls.VersionTLS11, tls.VersionTLS10}
	two := all[:2]
	only13, only12 := []uint16{tls.VersionTLS13}, []uint16{tls.VersionTLS12}
	var many []string
	for i := range 90 {
		many = append(many, fmt.Sprintf("proto%03d", i))
	}
	tests := []struct {
		sample string
		want   Hello
	}{
		{"chromium-tls", Hello{"shop.example.com", usual, two, true}},
		{"curl-tls", Hello{"shop.example.com", usual, all, false}},
		{"curl-tls12", Hello{"shop.example.com", usual[1:], only12, false}},
		{"curl-tls-address", Hello{"", usual, all, false}},
		{"openssl-tls12", Hello{"shop.example.com", nil, only12, false}},
		{"openssl-tls12-noname", Hello{"", nil, only12, false}},
		{"openssl-tls13", Hello{"shop.example.com", usual, only13, false}},
		{"openssl-tls13-noname", Hello{"", nil, only13, false}},
		{"openssl-address6", Hello{"::1", nil, only13, false}},
		{"openssl-three-records", Hello{"shop.example.com", many, only13, false}},
		{"node-tls", Hello{"shop.example.com", nil, two, false}},
		{"java-tls", Hello{"shop.example.com", usual, two, false}},
	}
	for _, tt := range tests {
		t.Run(tt.sample, func(t *testing.T) {
			b := sample(t, tt.sample)
			got, err := TLS(b)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
			checkVerdictAt(t, b, TLS)
			checkAgainstGo(t, b)
			checkRecords(t, b, got)
		})
	}
}

func TestTLSOfGo(t *testing.T) {
	tests := []struct {
		name   string
		config *tls.Config
		want   Hello
		least  int // bytes
	}{
		{
			name:   "TLS 1.2 alone",
			config: &tls.Config{ServerName: "Shop.Example.com", MaxVersion: tls.VersionTLS12},
			want:   Hello{ServerName: "shop.example.com", Versions: []uint16{tls.VersionTLS12}},
		},
		{
			name:   "TLS 1.0 to 1.3 with protocols",
			config: &tls.Config{ServerName: "a.b", MinVersion: tls.VersionTLS10, NextProtos: []string{"acme-tls/1", "h2"}},
			want: Hello{ServerName: "a.b", ALPN: []string{"acme-tls/1", "h2"},
				Versions: []uint16{tls.VersionTLS13, tls.VersionTLS12, tls.VersionTLS11, tls.VersionTLS10}},
		},
		{
			name:   "post-quantum key share",
			config: &tls.Config{ServerName: "a.b", MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}},
			want:   Hello{ServerName: "a.b", Versions: []uint16{tls.VersionTLS13}},
			least:  1184,
		},
		{
			name:   "no name",
			config: &tls.Config{MinVersion: tls.VersionTLS13},
			want:   Hello{Versions: []uint16{tls.VersionTLS13}},
		},
		{
			name: "an encrypted ClientHello shows the outer name",
			config: &tls.Config{ServerName: "secret.example.com", MinVersion: tls.VersionTLS13,
				EncryptedClientHelloConfigList: echConfigList(t, "public.example.com")},
			want: Hello{ServerName: "public.example.com", Versions: []uint16{tls.VersionTLS13}, ECH: true},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.InsecureSkipVerify = tt.config.ServerName == "" // without that Go wants a name
			b := helloOfGo(t, tt.config)
			got, err := TLS(b)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
			if len(b) < tt.least {
				t.Errorf("it has %d bytes; want at least %d", len(b), tt.least)
			}
			checkVerdictAt(t, b, TLS)
			checkAgainstGo(t, b)
			checkRecords(t, b, got)
		})
	}
}

// helloOfGo returns what a client of crypto/tls sends first, over loopback, up to the verdict.
func helloOfGo(t *testing.T, config *tls.Config) []byte {
	t.Helper()
	return firstBytes(t, TLS, func(conn net.Conn) {
		tls.Client(conn, config).Handshake() // which fails: nobody answers
	})
}

// firstBytes reads what a client sends until read has a verdict, and closes the connection.
func firstBytes[T any](t *testing.T, read func([]byte) (T, error), client func(net.Conn)) []byte {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
			l.Close()
			return
		}
		defer conn.Close()
		client(conn)
	}()
	defer func() { <-done }()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var b []byte
	for buf := make([]byte, 512); ; { // small, so that more than one read is needed
		n, err := conn.Read(buf)
		b = append(b, buf[:n]...)
		if _, verdict := read(b); verdict != ErrShort {
			return b
		}
		if err != nil {
			t.Fatalf("no verdict after %d bytes: %v", len(b), err)
		}
	}
}

// echConfigList makes the list that a server with the public name would publish (RFC 9849, section 4).
func echConfigList(t *testing.T, publicName string) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	config := slices.Concat(
		[]byte{1},                         // its number
		[]byte{0, 0x20},                   // DHKEM(X25519, HKDF-SHA256)
		vector16(key.PublicKey().Bytes()), // of that
		vector16([]byte{0, 1, 0, 1}),      // HKDF-SHA256 with AES-128-GCM
		[]byte{0},                         // length of the longest name: not told
		vector8([]byte(publicName)),       // the outer name
		vector16(nil),                     // no extensions
	)
	return vector16(append([]byte{0xfe, 0x0d}, vector16(config)...))
}

func vector8(b []byte) []byte { return append([]byte{byte(len(b))}, b...) }
func vector16(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

// records cuts a handshake message into records of n bytes of payload.
func records(message []byte, n int) []byte {
	var b []byte
	for part := range slices.Chunk(message, n) {
		b = append(b, recordHandshake, 3, 1)
		b = append(b, vector16(part)...)
	}
	return b
}

// message joins what the records in b carry.
func message(b []byte) []byte {
	var joined []byte
	for len(b) > 0 {
		payload, _, _ := record(b)
		joined = append(joined, payload...)
		b = b[recordHeader+len(payload):]
	}
	return joined
}

// checkRecords holds that it does not matter how a ClientHello was cut into records.
func checkRecords(t *testing.T, b []byte, want Hello) {
	t.Helper()
	m := message(b)
	for _, n := range []int{1, 2, 3, 4, 5, 7, 100, len(m) - 1, len(m)} {
		cut := records(m, n)
		got, err := TLS(cut)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("in records of %d bytes: %+v, %v; want %+v", n, got, err, want)
		}
		checkVerdictAt(t, cut, TLS)
	}
}

// extension makes an extension with its header.
func extension(kind uint16, data ...byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, kind), vector16(data)...)
}

// sni makes a server_name extension of host names.
func sni(names ...string) []byte {
	var list []byte
	for _, name := range names {
		list = append(list, nameTypeHost)
		list = append(list, vector16([]byte(name))...)
	}
	return extension(extServerName, vector16(list)...)
}

func alpn(names ...string) []byte {
	var list []byte
	for _, name := range names {
		list = append(list, vector8([]byte(name))...)
	}
	return extension(extALPN, vector16(list)...)
}

// start is a ClientHello up to its extensions: TLS 1.2, no session, two suites, no compression.
var start = slices.Concat([]byte{3, 3}, make([]byte, randomLength), vector8(nil), vector16([]byte{0x13, 1, 0x13, 2}), vector8([]byte{0}))

// hello makes a ClientHello in one record.
func hello(extensions ...[]byte) string {
	return helloBody(append(slices.Clone(start), vector16(slices.Concat(extensions...))...))
}

func helloBody(body []byte) string {
	return string(records(append([]byte{messageClientHello, 0}, vector16(body)...), maxRecord))
}

func TestTLS(t *testing.T) {
	v12 := []uint16{tls.VersionTLS12}
	label := strings.Repeat("a", 63) + "."
	long := (label + label + label + label)[:maxHost]
	tests := []struct {
		name string
		in   string
		want Hello
		err  error
	}{
		// Names.
		{name: "a ClientHello without extensions", in: helloBody(start), want: Hello{Versions: v12}},
		{name: "an empty list of extensions", in: hello(), want: Hello{Versions: v12}},
		{name: "the name is put in lower case", in: hello(sni("Shop.EXAMPLE.com")), want: Hello{ServerName: "shop.example.com", Versions: v12}},
		{name: "the trailing dot is stripped", in: hello(sni("a.b.")), want: Hello{ServerName: "a.b", Versions: v12}},
		{name: "Punycode stays", in: hello(sni("xn--bcher-kva.example")), want: Hello{ServerName: "xn--bcher-kva.example", Versions: v12}},
		{name: "the longest name", in: hello(sni(long)), want: Hello{ServerName: long, Versions: v12}},
		{name: "an IPv4 address as name", in: hello(sni("127.0.0.1")), want: Hello{ServerName: "127.0.0.1", Versions: v12}},
		{name: "an IPv6 address as name is put in its shortest form", in: hello(sni("2001:DB8:0::A")), want: Hello{ServerName: "2001:db8::a", Versions: v12}},
		{name: "an IPv6 address in brackets as name", in: hello(sni("[::1]")), want: Hello{ServerName: "::1", Versions: v12}},
		{name: "the name need not come first", in: hello(alpn("h2"), extension(23), sni("a.b")), want: Hello{ServerName: "a.b", ALPN: []string{"h2"}, Versions: v12}},

		// Protocols and versions.
		{name: "protocols stay as they are", in: hello(alpn("h2", "H2", "\x0a\x0a", "a.b/c")), want: Hello{ALPN: []string{"h2", "H2", "\x0a\x0a", "a.b/c"}, Versions: v12}},
		{name: "versions without GREASE", in: hello(extension(extSupportedVersions, 8, 0x1a, 0x1a, 3, 4, 0xfa, 0xfa, 3, 3)), want: Hello{Versions: []uint16{0x0304, 0x0303}}},
		{name: "a version that only looks like GREASE", in: hello(extension(extSupportedVersions, 4, 0x1a, 0x2a, 3, 4)), want: Hello{Versions: []uint16{0x1a2a, 0x0304}}},
		{name: "nothing but GREASE", in: hello(extension(extSupportedVersions, 2, 0x0a, 0x0a)), want: Hello{Versions: []uint16{}}},
		{name: "SSL 3.0", in: helloBody(append([]byte{3, 0}, start[2:]...)), want: Hello{Versions: []uint16{0x0300}}},
		{name: "extensions of no interest may hold anything", in: hello(extension(51, 1, 2, 3), extension(0x0a0a), extension(0x1a1a, 0)), want: Hello{Versions: v12}},
		{name: "as many extensions as there may be", in: hello(manyExtensions(maxExtensions)), want: Hello{Versions: v12}},

		// Encrypted ClientHello.
		{name: "an outer encrypted ClientHello", in: hello(sni("a.b"), extension(extECH, 0, 0, 1, 0, 1, 7, 0, 2, 8, 8, 0, 1, 9)), want: Hello{ServerName: "a.b", Versions: v12, ECH: true}},
		{name: "an inner encrypted ClientHello has the true name", in: hello(sni("a.b"), extension(extECH, 1)), want: Hello{ServerName: "a.b", Versions: v12}},
		{name: "an encrypted ClientHello of no known kind", in: hello(extension(extECH, 2)), err: errECH},
		{name: "an empty encrypted ClientHello", in: hello(extension(extECH)), err: errECH},
		{name: "an inner encrypted ClientHello with something after it", in: hello(extension(extECH, 1, 0)), err: errECH},
		{name: "an outer encrypted ClientHello without payload", in: hello(extension(extECH, 0, 0, 1, 0, 1, 7, 0, 0, 0, 0)), err: errECH},
		{name: "an outer encrypted ClientHello that is cut", in: hello(extension(extECH, 0, 0, 1, 0, 1, 7, 0, 2, 8)), err: errECH},
		{name: "an outer encrypted ClientHello with something after it", in: hello(extension(extECH, 0, 0, 1, 0, 1, 7, 0, 0, 0, 1, 9, 9)), err: errECH},

		// Not yet known.
		{name: "nothing at all", in: "", err: ErrShort},
		{name: "the first byte of a handshake", in: "\x16", err: ErrShort},
		{name: "a record header", in: "\x16\x03\x01\x02\x00", err: ErrShort},
		{name: "the header of a message", in: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc", err: ErrShort},
		{name: "one record of two", in: "\x16\x03\x01\x00\x01\x01", err: ErrShort},

		// Something else, and known by its first odd byte.
		{name: "HTTP", in: "G", err: ErrNotTLS},
		{name: "a TLS alert", in: "\x15", err: ErrNotTLS},
		{name: "a ClientHello of SSL 2.0", in: "\x80", err: ErrNotTLS},
		{name: "a major version other than 3", in: "\x16\x02", err: ErrNotTLS},
		{name: "DTLS", in: "\x16\xfe", err: ErrNotTLS},

		// TLS that nobody should serve, known as early as can be.
		{name: "a record far too long", in: "\x16\x03\x01\x41", err: errRecordLength},
		{name: "a record a little too long", in: "\x16\x03\x01\x40\x01", err: errRecordLength},
		{name: "a record without payload", in: "\x16\x03\x01\x00\x00", err: errRecordEmpty},
		{name: "a record without payload later on", in: "\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x00", err: errRecordEmpty},
		{name: "a ServerHello", in: "\x16\x03\x03\x00\x7a\x02", err: errMessageType},
		{name: "a message far too long", in: "\x16\x03\x01\x40\x00\x01\x01", err: errMessageLength},
		{name: "a message far too long, over records", in: "\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x01\xff", err: errMessageLength},
		{name: "an alert inside a ClientHello", in: "\x16\x03\x01\x00\x01\x01\x15", err: errRecordType},
		{name: "a change of cipher inside a ClientHello", in: "\x16\x03\x01\x00\x01\x01\x14", err: errRecordType},
		{name: "a record of another major version inside a ClientHello", in: "\x16\x03\x01\x00\x01\x01\x16\x02", err: errRecordType},

		{name: "an empty ClientHello", in: helloBody(nil), err: errCut},
		{name: "a ClientHello that ends in its random bytes", in: helloBody(start[:20]), err: errCut},
		{name: "a ClientHello that ends in its suites", in: helloBody(start[:38]), err: errCut},
		{name: "a session ID that is too long", in: helloBody(slices.Concat(start[:34], vector8(make([]byte, 33)), start[35:])), err: errSessionID},
		{name: "no suites", in: helloBody(slices.Concat(start[:35], vector16(nil), vector8([]byte{0}))), err: errSuites},
		{name: "half a suite", in: helloBody(slices.Concat(start[:35], vector16([]byte{1}), vector8([]byte{0}))), err: errSuites},
		{name: "no compression method", in: helloBody(slices.Concat(start[:41], vector8(nil))), err: errCompression},
		{name: "half a length of extensions", in: helloBody(append(slices.Clone(start), 0)), err: errExtensions},
		{name: "extensions shorter than they say", in: helloBody(append(slices.Clone(start), 0, 5, 0, 23, 0, 0)), err: errExtensions},
		{name: "something after the extensions", in: helloBody(append(slices.Clone(start), 0, 0, 0)), err: errExtensions},
		{name: "an extension shorter than it says", in: hello([]byte{0, 23, 0, 1}), err: errExtensions},
		{name: "half an extension", in: hello([]byte{0, 23}), err: errExtensions},
		{name: "more extensions than there may be", in: hello(manyExtensions(maxExtensions + 1)), err: errManyExtensions},
		{name: "two names in two extensions", in: hello(sni("a.b"), sni("c.d")), err: errTwice},
		{name: "the same extension twice", in: hello(extension(23), extension(5), extension(23)), err: errTwice},
		{name: "two names in one extension", in: hello(sni("a.b", "c.d")), err: errNameList},
		{name: "the same name twice", in: hello(sni("a.b", "a.b")), err: errNameList},
		{name: "a name of another type", in: hello(extension(extServerName, 0, 4, 1, 0, 1, 'a')), err: errNameList},
		{name: "a name beside one of another type", in: hello(extension(extServerName, 0, 8, 0, 0, 1, 'a', 1, 0, 1, 'b')), err: errNameList},
		{name: "a list of no names", in: hello(sni()), err: errNameList},
		{name: "no list of names", in: hello(extension(extServerName)), err: errNameList},
		{name: "something after the list of names", in: hello(extension(extServerName, 0, 4, 0, 0, 1, 'a', 0)), err: errNameList},
		{name: "an empty name", in: hello(sni("")), err: errServerName},
		{name: "a name with a port", in: hello(sni("a.b:443")), err: errServerName},
		{name: "a name with a zero byte", in: hello(sni("a.b\x00.c")), err: errServerName},
		{name: "a name with a slash", in: hello(sni("../a")), err: errServerName},
		{name: "a name with a space", in: hello(sni("a b")), err: errServerName},
		{name: "a name above ASCII", in: hello(sni("bücher.example")), err: errServerName},
		{name: "a wildcard", in: hello(sni("*.example.com")), err: errServerName},
		{name: "a name with an empty label", in: hello(sni("a..b")), err: errServerName},
		{name: "a name that is too long", in: hello(sni(long + "a")), err: errServerName},
		{name: "an IPv6 address with a zone", in: hello(sni("fe80::1%eth0")), err: errServerName},
		{name: "an IPv6 address with one bracket", in: hello(sni("[::1")), err: errServerName},
		{name: "an IPv6 address with a port", in: hello(sni("[::1]:443")), err: errServerName},
		{name: "a list of no protocols", in: hello(alpn()), err: errALPN},
		{name: "no list of protocols", in: hello(extension(extALPN)), err: errALPN},
		{name: "an empty protocol", in: hello(alpn("h2", "")), err: errALPN},
		{name: "a protocol shorter than it says", in: hello(extension(extALPN, 0, 2, 2, 'h')), err: errALPN},
		{name: "something after the list of protocols", in: hello(extension(extALPN, 0, 2, 1, 'h', 0)), err: errALPN},
		{name: "a list of no versions", in: hello(extension(extSupportedVersions, 0)), err: errVersions},
		{name: "half a version", in: hello(extension(extSupportedVersions, 3, 3, 4, 3)), err: errVersions},
		{name: "something after the list of versions", in: hello(extension(extSupportedVersions, 2, 3, 4, 0)), err: errVersions},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := TLS([]byte(tt.in))
			if !reflect.DeepEqual(got, tt.want) || !errors.Is(err, tt.err) {
				t.Errorf("TLS(%q) = %+v, %v; want %+v, %v", tt.in, got, err, tt.want, tt.err)
			}
			checkAgainstGo(t, []byte(tt.in))
			if err == ErrShort {
				checkFinal(t, []byte(tt.in), TLS)
				return
			}
			checkVerdictAt(t, []byte(tt.in), TLS)
		})
	}
}

// manyExtensions makes n extensions of no interest.
func manyExtensions(n int) []byte {
	var b []byte
	for i := range n {
		b = append(b, extension(0x4000+uint16(i))...)
	}
	return b
}

func TestTLSTakesA64KiBHello(t *testing.T) {
	body := slices.Clone(start)
	body = append(body, vector16(slices.Concat(extension(21, make([]byte, 65000)...), sni("a.b")))...)
	b := records(append([]byte{messageClientHello, 0}, vector16(body)...), maxRecord)
	got, err := TLS(b)
	if err != nil || got.ServerName != "a.b" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := TLS(b[:len(b)-1]); err != ErrShort {
		t.Errorf("without its last byte: %v; want ErrShort", err)
	}
}

func TestTLSDoesNotLookAtWhatFollows(t *testing.T) {
	m := message([]byte(hello(sni("a.b"))))
	for _, more := range []string{"\x00", "\x01\x00\x00\x00", "\x10\x00\x00\x01\x00"} {
		b := records(append(slices.Clone(m), more...), maxRecord)
		if got, err := TLS(b); err != nil || got.ServerName != "a.b" {
			t.Errorf("followed by %q in its record: %+v, %v", more, got, err)
		}
		checkFinal(t, b, TLS)
	}
}

// TestTLSCostsOnlyItsResult: the name, the list of protocols, the list of versions.
func TestTLSCostsOnlyItsResult(t *testing.T) {
	b := sample(t, "chromium-tls")
	if n := testing.AllocsPerRun(100, func() { TLS(b) }); n > 3 {
		t.Errorf("%v allocations; want 3", n)
	}
	short := b[:len(b)-1]
	if n := testing.AllocsPerRun(100, func() { TLS(short) }); n > 0 {
		t.Errorf("%v allocations for a ClientHello that is not all there; want none", n)
	}
	short = records(message(b), 1)
	short = short[:len(short)-1]
	if n := testing.AllocsPerRun(100, func() { TLS(short) }); n > 0 {
		t.Errorf("%v allocations for records of a ClientHello that is not all there; want none", n)
	}
}

func TestErrorsOfTLSNameTheirReason(t *testing.T) {
	_, err := TLS([]byte(hello(sni("a.b", "c.d"))))
	if want := "sniff: malformed ClientHello: bad server_name extension"; errorText(err) != want {
		t.Errorf("error is %q; want %q", errorText(err), want)
	}
}

// stream is the read side of a connection whose client has sent its bytes and left.
type stream struct {
	net.Conn // nil: a server of crypto/tls that fails asks for no more than what follows
	r        *bytes.Reader
}

func (s stream) Read(b []byte) (int, error)  { return s.r.Read(b) }
func (s stream) Write(b []byte) (int, error) { return len(b), nil }

// asGoSees returns what a server of crypto/tls makes of a ClientHello, or nil if it refuses it.
func asGoSees(b []byte) (seen *tls.ClientHelloInfo) {
	enough := errors.New("seen enough")
	server := tls.Server(stream{r: bytes.NewReader(b)}, &tls.Config{
		GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
			seen = info
			return nil, enough
		},
	})
	server.Handshake()
	return seen
}

// stricter are the rules that crypto/tls does not hold clients to: most of them it leaves to a later check, or does not need.
var stricter = []error{
	errRecordLength, errRecordType, errMessageLength, errSessionID, errSuites, errCompression, errManyExtensions, errNameList,
	errServerName, errECH,
}

// checkAgainstGo compares TLS with crypto/tls, which reads all of a ClientHello and so refuses more. What both take, they must
// understand alike; what it takes, TLS must take too, but for the rules that are stricter here.
func checkAgainstGo(t *testing.T, b []byte) {
	t.Helper()
	theirs := asGoSees(b)
	if theirs == nil {
		return
	}
	ours, err := TLS(b)
	if err != nil {
		odd := err == ErrNotTLS && (b[0] != recordHandshake || b[1] != 3) // it passes over warnings first, and takes major versions up to 15
		if !odd && !slices.Contains(stricter, err) {
			t.Fatalf("TLS(%q): %v; crypto/tls takes it", b, err)
		}
		return
	}
	if want := lowerName(theirs.ServerName); ours.ServerName != want {
		t.Fatalf("TLS(%q) has the name %q; crypto/tls %q", b, ours.ServerName, want)
	}
	if !slices.Equal(ours.ALPN, theirs.SupportedProtos) {
		t.Fatalf("TLS(%q) has the protocols %q; crypto/tls %q", b, ours.ALPN, theirs.SupportedProtos)
	}
	if slices.Contains(theirs.Extensions, extSupportedVersions) {
		if want := slices.DeleteFunc(theirs.SupportedVersions, isGREASE); !slices.Equal(ours.Versions, want) {
			t.Fatalf("TLS(%q) has the versions %x; crypto/tls %x", b, ours.Versions, want)
		}
	}
	if ours.ECH && !slices.Contains(theirs.Extensions, extECH) {
		t.Fatalf("TLS(%q) has seen an encrypted ClientHello; crypto/tls has not", b)
	}
}

func lowerName(name string) string {
	if ip := net.ParseIP(strings.Trim(name, "[]")); ip != nil && strings.Contains(name, ":") {
		return ipv6(ip)
	}
	return strings.ToLower(name)
}

// ipv6 is what net.IP would print, had it not lost that an IPv4 address was mapped into IPv6.
func ipv6(ip net.IP) string {
	if v4 := ip.To4(); v4 != nil {
		return "::ffff:" + v4.String()
	}
	return ip.String()
}

func FuzzTLS(f *testing.F) {
	for name, b := range samples(f) {
		if strings.Contains(name, "tls") || strings.Contains(name, "openssl") {
			f.Add(b)
			f.Add(records(message(b), 7))
		}
	}
	f.Add([]byte(hello(sni("a.b"), alpn("h2"), extension(extSupportedVersions, 4, 0x0a, 0x0a, 3, 4))))
	f.Add([]byte(hello(sni("::1"), extension(extECH, 0, 0, 1, 0, 1, 7, 0, 0, 0, 1, 9))))
	f.Add([]byte(hello(sni("a.b", "c.d"))))
	f.Add([]byte(helloBody(start)))
	f.Add(records(message([]byte(hello(sni("a.b")))), 1))
	f.Fuzz(checkHello)
}

// FuzzTLSExtensions puts what it makes where extensions go, with lengths that are right, in records of some size.
func FuzzTLSExtensions(f *testing.F) {
	f.Add(slices.Concat(sni("Shop.Example.com."), alpn("h2", "http/1.1"), extension(extSupportedVersions, 4, 0x0a, 0x0a, 3, 4)), uint16(maxRecord))
	f.Add(slices.Concat(extension(0x1a1a), extension(extECH, 0, 0, 1, 0, 1, 7, 0, 0, 0, 1, 9), sni("::1")), uint16(1))
	f.Add(slices.Concat(extension(extECH, 1), sni("[2001:DB8::1]"), extension(23)), uint16(7))
	f.Add(sni("a.b", "c.d"), uint16(100))
	f.Add(slices.Concat(sni("10.0.0.1"), sni("a.b")), uint16(2))
	f.Fuzz(func(t *testing.T, extensions []byte, size uint16) {
		m := message([]byte(hello(extensions[:min(len(extensions), maxRecord-100)])))
		checkHello(t, records(m, 1+int(size)%maxRecord))
	})
}

func checkHello(t *testing.T, b []byte) {
	checkAgainstGo(t, b)
	if h, err := TLS(b); err == nil && h.ServerName != "" {
		checkHost(t, h.ServerName)
	}
	checkFinal(t, b[:min(len(b), fuzzLength)], TLS)
}
