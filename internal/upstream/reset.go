package upstream

// Reset closes a connection, and has its peer see a reset, as Copy does. Pending reads and writes return.
func Reset(c Conn) { newSide(c).reset() }
