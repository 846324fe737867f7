package bench

import (
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

func describe() Machine {
	v := windows.RtlGetVersion()
	return Machine{
		CPU: os.Getenv("PROCESSOR_IDENTIFIER"),
		OS:  fmt.Sprintf("Windows %d.%d.%d", v.MajorVersion, v.MinorVersion, v.BuildNumber),
	}
}
