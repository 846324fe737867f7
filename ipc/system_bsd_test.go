//go:build darwin || netbsd || openbsd

package ipc_test

func limit(n int) uint64 { return uint64(n) }

func keepAliveTimes(int) []int { return nil }
