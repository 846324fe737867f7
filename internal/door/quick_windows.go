package door

// quick is for systems on which what a client has sent can be looked at without waiting.
func (c *conn) quick() bool { return false }
