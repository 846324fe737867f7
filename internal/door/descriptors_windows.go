package door

// maxDescriptors is not limited by a number there.
func maxDescriptors() (n uint64, known bool) { return 0, false }
