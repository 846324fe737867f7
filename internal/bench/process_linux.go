package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cpuTime returns for how long the threads of a process have been on a processor; 0 if that cannot be read.
func cpuTime(pid int) (sum time.Duration) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, thread := range threads {
		text, err := os.ReadFile(dir + "/" + thread.Name() + "/schedstat")
		if err != nil {
			continue // it has ended
		}
		first, _, _ := strings.Cut(string(text), " ") // nanoseconds: Documentation/scheduler/sched-stats.rst
		ns, _ := strconv.ParseInt(first, 10, 64)
		sum += time.Duration(ns)
	}
	return sum
}

// residentMemory returns how many bytes of a process are in memory. /proc/PID/statm is cheaper, and off by what each
// processor has not told yet.
func residentMemory(pid int) (int64, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "Rss:" {
			kB, err := strconv.ParseInt(fields[1], 10, 64)
			return kB << 10, err == nil
		}
	}
	return 0, false
}

// descriptorsOf returns how many descriptors a process has.
func descriptorsOf(pid int) int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries)
}

// raiseDescriptors raises the limit of descriptors as far as it goes, for this process and those that it starts, and
// returns it.
func raiseDescriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	// Only the superuser may raise the hard limit. Set by the package syscall, the limit is also the children's.
	for _, hard := range []uint64{max(limit.Max, manyDescriptors), limit.Max} {
		raised := syscall.Rlimit{Cur: hard, Max: hard}
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil {
			return int(min(hard, manyDescriptors))
		}
	}
	return int(min(limit.Cur, manyDescriptors))
}
