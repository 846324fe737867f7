package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// setText sets a scalar from its text in a file or a tag.
func setText(v reflect.Value, text string) error {
	switch v.Type() {
	case durationType:
		d, err := parseDuration(text)
		v.SetInt(int64(d))
		return err
	case sizeType:
		n, err := parseSize(text)
		v.SetInt(int64(n))
		return err
	case prefixType:
		p, err := parsePrefix(text)
		v.Set(reflect.ValueOf(p))
		return err
	}
	switch v.Kind() {
	case reflect.Bool:
		b, err := parseBool(text)
		v.SetBool(b)
		return err
	case reflect.Int:
		n, err := parseInt(text)
		v.SetInt(int64(n))
		return err
	}
	v.SetString(text)
	return checkString(text)
}

// checkString refuses what no name, path or address has.
func checkString(s string) error {
	if s == "" {
		return errors.New("is empty: leave it out instead")
	}
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		return fmt.Errorf("%q has a control character", s)
	}
	return nil
}

func parseBool(s string) (bool, error) {
	switch s {
	case "true", "True", "TRUE":
		return true, nil
	case "false", "False", "FALSE":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", s)
}

func parseInt(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%s is out of range", s)
	}
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number", s)
	}
	return n, nil
}

// parseDuration takes what [time.ParseDuration] does.
func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration, as 500ms, 5s or 1m30s", s)
	}
	return d, nil
}

var units = []struct {
	name string
	size int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"kB", 1e3}, {"MB", 1e6}}

func parseSize(s string) (Size, error) {
	digits := strings.TrimRight(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
	factor := int64(1)
	if unit := s[len(digits):]; unit != "" {
		factor = 0
		for _, u := range units {
			if u.name == unit {
				factor = u.size
			}
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if factor == 0 || errors.Is(err, strconv.ErrSyntax) {
		return 0, fmt.Errorf("%q is not a size: a number, or one with the unit KiB or MiB (1024s), kB or MB (1000s)", s)
	}
	if err != nil || n > math.MaxInt64/factor || n < math.MinInt64/factor {
		return 0, fmt.Errorf("%s is out of range", s)
	}
	return Size(n * factor), nil
}

// parsePrefix takes a network or a single address. A network whose address has more bits than its length
// is refused, for it may be the address or the length that is wrong; so is IPv4 in the clothes of IPv6, lest
// ::ffff:0:0/90 or the like be taken for what it is not.
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		addr, addrErr := netip.ParseAddr(s)
		if addrErr != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is neither a network, as 10.0.0.0/8, nor an address", s)
		}
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s is an IPv4 address in an IPv6 one: write the IPv4 address", s)
	}
	if m := p.Masked(); m != p {
		return netip.Prefix{}, fmt.Errorf("%s is an address in the network %s: write %s or %s", s, m, m, p.Addr())
	}
	return p, nil
}
