//go:build darwin || freebsd || netbsd || openbsd

package sys

import "errors"

// DeferAccept is for Linux. (FreeBSD has accept filters, which are modules of its kernel that have to be loaded.)
func DeferAccept(uintptr, bool) error { return errors.ErrUnsupported }
