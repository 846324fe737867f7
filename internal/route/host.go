package route

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	maxHost  = 253 // the longest domain name, and its longest label, RFC 1035 section 3.1
	maxLabel = 63
)

// punycode is [idna.Lookup] without its rules for ASCII. Those refuse underscores and some hyphens, which
// hosts in use have; checkName has the rules of package sniff instead.
var punycode = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false), idna.CheckHyphens(false))

// NormalizeHost returns a host, as people write it in a configuration, in the form in which package sniff
// returns those that clients ask for: a name is in lower case and in Punycode (UTS #46, as browsers do it)
// and has no trailing dot, an IPv6 address has no brackets and is in its shortest form.
//
// It refuses ports, zones, wildcards (see [NormalizePattern]), and names that end in a number but are no
// address, such as 10.0.0.256. A name that it returns has letters, digits, hyphens, underscores and single
// dots, starts with neither dot nor hyphen, and has at most 253 bytes, so it is safe as a file name. A label
// that is in Punycode already is not decoded to see whether it is valid.
func NormalizeHost(s string) (string, error) {
	if s == "" {
		return "", fmt.Errorf("host is empty")
	}
	if host, isAddr, err := normalizeAddr(s); isAddr || err != nil {
		return host, err
	}
	name, err := toASCII(s)
	if err != nil {
		return "", err
	}
	name = strings.TrimSuffix(name, ".")
	if addr, err := netip.ParseAddr(name); err == nil && addr.Is4() {
		return addr.String(), nil // one with a trailing dot, or in the wide digits of East Asian keyboards
	}
	if err := checkName(s, name); err != nil {
		return "", err
	}
	return strings.ToLower(name), nil
}

// NormalizePattern is NormalizeHost for what may also be a wildcard: "*." and the name of a domain. It
// refuses an asterisk anywhere else, and wildcards of addresses.
func NormalizePattern(s string) (string, error) {
	domain, isWildcard := strings.CutPrefix(s, "*.")
	if !isWildcard {
		return NormalizeHost(s)
	}
	domain, err := NormalizeHost(domain)
	if err != nil {
		return "", fmt.Errorf("wildcard %q: %w", s, err)
	}
	if _, err := netip.ParseAddr(domain); err == nil {
		return "", fmt.Errorf("wildcard %q is of an address, which has no subdomains", s)
	}
	if len("*.")+len(domain) > maxHost {
		return "", fmt.Errorf("wildcard %q has more than %d bytes", s, maxHost)
	}
	return "*." + domain, nil
}

// normalizeAddr is for what can only be an address: in brackets, or IPv6, or plain IPv4.
func normalizeAddr(s string) (host string, isAddr bool, err error) {
	text, bracketed := strings.CutPrefix(s, "[")
	if bracketed {
		var rest string
		if text, rest, bracketed = strings.Cut(text, "]"); !bracketed {
			return "", false, fmt.Errorf("host %q has no ']'", s)
		}
		if strings.HasPrefix(rest, ":") {
			return "", false, portError(s)
		}
		if rest != "" {
			return "", false, fmt.Errorf("host %q goes on after ']'", s)
		}
	}
	addr, err := netip.ParseAddr(text)
	if bracketed && (err != nil || !addr.Is6()) {
		return "", false, fmt.Errorf("host %q has no IPv6 address in its brackets", s)
	}
	if err != nil {
		return "", false, nil
	}
	if addr.Zone() != "" {
		return "", false, fmt.Errorf("host %q has a zone, which no client sends", s)
	}
	return addr.String(), true, nil
}

func portError(s string) error {
	return fmt.Errorf("host %q has a port; routes match hosts without regard to the port", s)
}

// toASCII leaves a name that is ASCII already as it is.
func toASCII(s string) (string, error) {
	if isASCII(s) {
		return s, nil
	}
	if !utf8.ValidString(s) {
		return "", fmt.Errorf("host %q is not UTF-8", s)
	}
	if len(s) > utf8.UTFMax*maxHost { // before the mapping takes time for it
		return "", tooLong(s)
	}
	name, err := punycode.ToASCII(s)
	if err != nil {
		return "", fmt.Errorf("host %q is no internationalized name: %w", s, err)
	}
	return name, nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func tooLong(s string) error {
	return fmt.Errorf("host %.40q… has more than %d bytes", s, maxHost)
}

// checkName checks a name in ASCII, whose spelling by the user is s.
func checkName(s, name string) error {
	if len(name) > maxHost {
		return tooLong(s)
	}
	if host, port, found := strings.Cut(name, ":"); found && host != "" && isNumber(port) {
		return portError(s)
	}
	for i := range len(name) {
		if name[i] == '*' {
			return fmt.Errorf("host %q has an asterisk; a wildcard is \"*.\" before a name, and no host at all matches every host", s)
		}
		if !isHostByte(name[i]) {
			return fmt.Errorf("host %q has %q; names have letters, digits, '.', '-' and '_'", s, name[i])
		}
	}
	if strings.HasPrefix(name, "-") {
		return fmt.Errorf("host %q starts with a hyphen", s)
	}
	return checkLabels(s, name)
}

func checkLabels(s, name string) error {
	var label string
	for label = range strings.SplitSeq(name, ".") {
		if label == "" {
			return fmt.Errorf("host %q has an empty label", s)
		}
		if len(label) > maxLabel {
			return fmt.Errorf("host %q has a label of more than %d bytes", s, maxLabel)
		}
	}
	if isNumber(label) { // no top-level domain is, and clients take such a host for an address
		return fmt.Errorf("host %q ends in a number but is no IP address", s)
	}
	return nil
}

func isHostByte(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || isDigit(c) || c == '-' || c == '_' || c == '.'
}

func isNumber(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
