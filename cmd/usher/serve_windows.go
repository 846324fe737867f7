package main

import "os"

// There is no signal for it on Windows: the door loads its configuration anew when the file changes.
var reloadSignals []os.Signal
