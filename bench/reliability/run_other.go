//go:build !linux

package main

import (
	"errors"
	"fmt"
)

var roles map[string]func(args []string) error

func (*measurement) run() error {
	return fmt.Errorf("%w: measuring is for Linux alone; \"write\" works everywhere", errors.ErrUnsupported)
}
