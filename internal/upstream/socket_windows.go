package upstream

import "golang.org/x/sys/windows"

// hungUp is always false. There is no need to know: Windows tells of a reset as often as it is asked, and it
// drops what was received before, so that nothing can be saved from a side that broke.
func hungUp(uintptr) bool { return false }

// abort makes the close that follows a reset: SO_LINGER with no time. The client of a connection that was on
// offer sees its stream end before that, for so the Close of one begins.
func abort(s uintptr) {
	_ = windows.SetsockoptLinger(windows.Handle(s), windows.SOL_SOCKET, windows.SO_LINGER, &windows.Linger{Onoff: 1})
}
