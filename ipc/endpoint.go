package ipc

import (
	"fmt"
	"strings"
)

const maxEndpoint = 253 // the longest host name, RFC 1035 section 3.1

// Path returns the path of the socket, or on Windows of the pipe, of an endpoint, as [Listen] and [Dial] take it. It looks at
// the environment, not at the file system: nothing needs to be there.
func Path(endpoint string) (string, error) {
	path, err := resolve(endpoint)
	if err != nil {
		return "", opError("resolve", addr(endpoint), err)
	}
	return path, nil
}

// resolve turns an endpoint's name into the path of its socket or pipe.
func resolve(endpoint string) (string, error) {
	if strings.IndexByte(endpoint, 0) >= 0 {
		return "", fmt.Errorf("endpoint %q has a zero byte", endpoint)
	}
	if isPath(endpoint) {
		return resolvePath(endpoint)
	}
	if err := checkName(endpoint); err != nil {
		return "", err
	}
	return resolveName(endpoint)
}

// checkName keeps plain names to what is one file name everywhere and cannot leave the folder.
func checkName(name string) error {
	if name == "" {
		return fmt.Errorf("endpoint has no name")
	}
	if len(name) > maxEndpoint {
		return fmt.Errorf("endpoint has a name of %d bytes, limit %d", len(name), maxEndpoint)
	}
	if name[0] == '.' || name[0] == '-' {
		return fmt.Errorf("endpoint %q starts with %q", name, name[0])
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return fmt.Errorf("endpoint %q has %q at byte %d; a plain name has letters, digits, '.', '-' and '_'", name, c, i)
		}
	}
	return nil
}
