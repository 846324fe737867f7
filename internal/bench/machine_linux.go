package bench

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func describe() Machine {
	m := Machine{CPU: firstValue("/proc/cpuinfo", "model name"), OS: "Linux"} // ARM has none
	kB, _, _ := strings.Cut(firstValue("/proc/meminfo", "MemTotal"), " ")
	if n, err := strconv.ParseInt(kB, 10, 64); err == nil {
		m.Memory = n << 10
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.OS = "Linux " + unix.ByteSliceToString(u.Release[:])
	}
	return m
}

// firstValue returns what comes after "key:" in a file of such lines; "" if there is none.
func firstValue(path, key string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
