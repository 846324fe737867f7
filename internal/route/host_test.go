package route

import (
	"net/netip"
	"strings"
	"testing"
)

func TestNormalizePattern(t *testing.T) {
	long := strings.Repeat("a", maxLabel)
	longest := strings.Repeat(long+".", 3) + strings.Repeat("a", 61) // 253 bytes
	for _, test := range []struct{ name, in, want string }{
		{"a name stays", "shop.example.com", "shop.example.com"},
		{"a name of one label stays", "localhost", "localhost"},
		{"capitals become small", "Shop.EXAMPLE.com", "shop.example.com"},
		{"a trailing dot goes", "example.com.", "example.com"},
		{"hyphens and underscores are fine", "r3---sn_x-.ex--ample.com", "r3---sn_x-.ex--ample.com"},
		{"umlauts become Punycode", "bücher.example", "xn--bcher-kva.example"},
		{"capital umlauts become Punycode in small letters", "BÜCHER.example", "xn--bcher-kva.example"},
		{"a sharp s stays one", "straße.example", "xn--strae-oqa.example"},
		{"an underscore is fine beside umlauts", "_a.bücher.example", "_a.xn--bcher-kva.example"},
		{"Punycode stays", "XN--bcher-kva.example", "xn--bcher-kva.example"},
		{"an ideographic full stop is a dot", "例え。テスト。", "xn--r8jz45g.xn--zckzah"},
		{"wide letters become narrow", "ｅｘａｍｐｌｅ.com", "example.com"},
		{"the longest name is fine", longest, longest},
		{"an IPv4 address stays", "192.0.2.1", "192.0.2.1"},
		{"an IPv4 address loses its dot", "192.0.2.1.", "192.0.2.1"},
		{"an IPv4 address in wide digits becomes narrow", "１９２.0.2.1", "192.0.2.1"},
		{"an IPv6 address is shortened", "2001:0DB8:0:0::1", "2001:db8::1"},
		{"an IPv6 address loses its brackets", "[2001:db8::1]", "2001:db8::1"},
		{"an IPv4-mapped address stays one", "::ffff:1.2.3.4", "::ffff:1.2.3.4"},
		{"a wildcard is normalised", "*.BÜCHER.example.", "*.xn--bcher-kva.example"},
		{"a wildcard of one label is fine", "*.test", "*.test"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := NormalizePattern(test.in)
			if err != nil || got != test.want {
				t.Errorf("NormalizePattern(%q) = %q, %v; want %q", test.in, got, err, test.want)
			}
			if strings.HasPrefix(test.in, "*.") {
				return
			}
			if got, err := NormalizeHost(test.in); err != nil || got != test.want {
				t.Errorf("NormalizeHost(%q) = %q, %v; want %q", test.in, got, err, test.want)
			}
		})
	}
}

func TestNormalizePatternRefuses(t *testing.T) {
	for _, test := range []struct{ name, in, text string }{
		{"an empty host", "", "host is empty"},
		{"a lone dot", ".", "empty label"},
		{"an empty label", "a..example", "empty label"},
		{"a leading dot", ".example.com", "empty label"},
		{"two trailing dots", "example.com..", "empty label"},
		{"a leading hyphen", "-a.example", "starts with a hyphen"},
		{"a port", "example.com:8080", "has a port"},
		{"a port of an IPv4 address", "192.0.2.1:80", "has a port"},
		{"a port of an IPv6 address", "[::1]:80", "has a port"},
		{"a URL", "https://example.com", `has ':'`},
		{"a path", "example.com/api", `has '/'`},
		{"a user", "me@example.com", `has '@'`},
		{"a space", "example .com", `has ' '`},
		{"a slash made of a wide one", "a／b.example", `has '/'`},
		{"a name that ends in a number", "a.10", "ends in a number but is no IP address"},
		{"an IPv4 address with a number that is too large", "10.0.0.256", "ends in a number but is no IP address"},
		{"an IPv4 address with a leading zero", "010.0.0.1", "ends in a number but is no IP address"},
		{"a port alone", "8080", "ends in a number but is no IP address"},
		{"an open bracket", "[::1", "has no ']'"},
		{"more after the bracket", "[::1]x", "goes on after ']'"},
		{"a name in brackets", "[example.com]", "no IPv6 address in its brackets"},
		{"an IPv4 address in brackets", "[192.0.2.1]", "no IPv6 address in its brackets"},
		{"a zone", "fe80::1%eth0", "has a zone"},
		{"a zone in brackets", "[fe80::1%eth0]", "has a zone"},
		{"a label that is too long", strings.Repeat("a", 64) + ".example", "a label of more than 63 bytes"},
		{"a name that is too long", strings.Repeat("a.", 126) + "aa", "more than 253 bytes"},
		{"a very long name beyond ASCII", strings.Repeat("ä.", 1000), "more than 253 bytes"},
		{"bytes that are not UTF-8", "b\xfccher.example", "not UTF-8"},
		{"a rune that no name may have", "a\u2028b.example", "no internationalized name"},
		{"a lone asterisk", "*", "has an asterisk"},
		{"an asterisk with a dot alone", "*.", "host is empty"},
		{"an asterisk within a label", "*a.example", "has an asterisk"},
		{"an asterisk further down", "a.*.example", "has an asterisk"},
		{"two asterisks", "*.*.example", "has an asterisk"},
		{"a wildcard of an IPv4 address", "*.192.0.2.1", "is of an address"},
		{"a wildcard of an IPv6 address", "*.::1", "is of an address"},
		{"a wildcard with a port", "*.example.com:80", "has a port"},
		{"a wildcard that is too long", "*." + strings.Repeat("a.", 126) + "a", "more than 253 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := NormalizePattern(test.in)
			if err == nil || !strings.Contains(err.Error(), test.text) {
				t.Errorf("NormalizePattern(%q) = %q, %v; want an error with %q", test.in, got, err, test.text)
			}
			if got, err := NormalizeHost(test.in); err == nil {
				t.Errorf("NormalizeHost(%q) = %q; want an error", test.in, got)
			}
		})
	}
}

func TestNormalizeHostRefusesWildcards(t *testing.T) {
	if got, err := NormalizeHost("*.example.com"); err == nil || !strings.Contains(err.Error(), "asterisk") {
		t.Errorf("NormalizeHost = %q, %v", got, err)
	}
}

func FuzzNormalizeHost(f *testing.F) {
	for _, s := range []string{
		"shop.example.com", "Example.COM.", "bücher.example", "例え。テスト", "１９２.0.2.1", "[2001:db8::1]", "::ffff:1.2.3.4", "fe80::1%eth0",
		"a:80", "*.example.com", "xn--bcher-kva", "a..b", "-a", "_a", "10.0.0.256", "a\u200d.example", "אב.example", "[", "\xff", "a／b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, err := NormalizeHost(s)
		if err != nil {
			return
		}
		if again, err := NormalizeHost(host); err != nil || again != host {
			t.Fatalf("%q becomes %q, and that %q, %v", s, host, again, err)
		}
		wildcard, err := NormalizePattern("*." + s)
		if err == nil && wildcard != "*."+host {
			t.Fatalf("%q becomes %q, but its wildcard %q", s, host, wildcard)
		}
		if _, err := netip.ParseAddr(host); err == nil {
			return
		}
		if !isSafeFileName(host) {
			t.Fatalf("%q becomes %q", s, host)
		}
	})
}

// isSafeFileName has the rule of package ipc for plain endpoint names, since hosts become endpoints.
func isSafeFileName(s string) bool {
	if s == "" || len(s) > 253 || s[0] == '.' || s[0] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.-_") == ""
}
