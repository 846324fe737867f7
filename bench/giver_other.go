//go:build !linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/go-usher/usher/internal/bench"
)

func startGiver(context.Context, *crew) (*bench.Running, error) {
	return nil, fmt.Errorf("%w: the giver in C is for Linux", bench.ErrAbsent)
}

func compileGiver(string) (string, error) { return "", bench.ErrAbsent }

func listenPassed(string) (net.Listener, error) { return nil, errors.ErrUnsupported }
