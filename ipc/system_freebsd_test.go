package ipc_test

func limit(n int) int64 { return int64(n) }

func keepAliveTimes(int) []int { return nil }
