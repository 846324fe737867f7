//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package bench

import (
	"runtime"

	"golang.org/x/sys/unix"
)

func describe() Machine {
	m := Machine{OS: runtime.GOOS}
	for _, name := range []string{"machdep.cpu.brand_string", "hw.model"} { // the first is macOS's alone
		if cpu, err := unix.Sysctl(name); err == nil && m.CPU == "" {
			m.CPU = cpu
		}
	}
	for _, name := range []string{"hw.memsize", "hw.physmem64", "hw.physmem"} {
		if n, err := unix.SysctlUint64(name); err == nil && m.Memory == 0 {
			m.Memory = int64(n)
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.OS = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	return m
}
