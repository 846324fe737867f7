package processes

import (
	"os"
	"strconv"
	"strings"
)

// Children returns the processes that pid has started and that still run, and whether that can be known.
func Children(pid int) (found []int, known bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, false
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended meanwhile
		}
		// "pid (name) state ppid …", and a name may have blanks and parentheses: proc(5).
		after := stat[strings.LastIndexByte(string(stat), ')')+1:]
		if f := strings.Fields(string(after)); len(f) > 1 && f[0] != "Z" && f[1] == strconv.Itoa(pid) {
			found = append(found, child)
		}
	}
	return found, true
}
