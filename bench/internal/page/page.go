// Package page writes what was measured as people read it.
package page

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-usher/usher/internal/bench"
)

// Digits writes three digits of small numbers and all of the others.
func Digits(value float64) string {
	switch {
	case value < 10:
		return strconv.FormatFloat(value, 'f', 2, 64)
	case value < 100:
		return strconv.FormatFloat(value, 'f', 1, 64)
	}
	return Thousands(value)
}

// Thousands writes a whole number in groups of three digits.
func Thousands(value float64) string {
	s := strconv.FormatFloat(math.Abs(value), 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if value < 0 && s != "0" {
		s = "-" + s
	}
	return s
}

// Machine says what a run was made on, and when.
func Machine(date time.Time, m bench.Machine) string {
	parts := []string{date.Format("2 January 2006"), fmt.Sprintf("%s, cores: %d", cmp.Or(m.CPU, "unknown processor"), m.Cores)}
	if m.Memory > 0 {
		parts = append(parts, fmt.Sprintf("%.0f GB", float64(m.Memory)/1e9))
	}
	return strings.Join(append(parts, m.OS+" "+m.Arch), " · ")
}

// Measured says what was measured, and what could not be.
func Measured(versions, skipped map[string]string) []string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		parts = append(parts, name+" "+strings.TrimPrefix(versions[name], name))
	}
	for _, name := range slices.Sorted(maps.Keys(skipped)) {
		parts = append(parts, name+" was not there")
	}
	return parts
}
