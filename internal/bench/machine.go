package bench

import "runtime"

// ThisMachine describes the machine that this process runs on. What the system does not tell is empty.
func ThisMachine() Machine {
	m := describe()
	m.Cores = runtime.NumCPU()
	m.Arch = runtime.GOARCH
	return m
}
