//go:build !linux

package bench

import "time"

// These cannot be measured here: the figures are left out.

func cpuTime(int) time.Duration        { return 0 }
func residentMemory(int) (int64, bool) { return 0, false }
func descriptorsOf(int) int            { return 0 }
func raiseDescriptors() int            { return manyDescriptors }
