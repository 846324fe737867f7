//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// failures are the ways in which an upgrade of the door fails, one after the other.
var failures = []struct {
	name   string
	spoil  func(r *running) (restore func() error, err error)
	reason string // is in what usher upgrade says
}{
	{"the configuration is wrong", spoilConfig, "routes"},
	{"the new program does not start", spoilProgram("exit 3"), "exited with status 3"},
	{"the new program crashes", spoilProgram("kill -SEGV $$"), "segmentation fault"},
	{"the new program hangs", spoilProgram("exec sleep 1000"), "was too slow"},
}

// failUpgrade asks for an upgrade that cannot succeed, and wants to be told so.
func failUpgrade(ctx context.Context, r *running, i int) error {
	f := failures[i%len(failures)]
	restore, err := f.spoil(r)
	if err != nil {
		return err
	}
	out, err := r.command(ctx, "upgrade", "--config", r.config)
	if e := restore(); e != nil {
		return e
	}
	if err == nil {
		return fmt.Errorf("%s, and the upgrade succeeded: %s", f.name, out)
	}
	if !strings.Contains(out, f.reason) {
		return fmt.Errorf("%s, and usher upgrade says something else: %s", f.name, out)
	}
	return ctx.Err()
}

// spoilConfig has the configuration be none.
func spoilConfig(r *running) (restore func() error, err error) {
	good, err := os.ReadFile(r.config)
	if err != nil {
		return nil, err
	}
	restore = func() error { return replaceFile(r.config, good, 0o600) }
	return restore, replaceFile(r.config, []byte("routes: 7\n"), 0o600)
}

// spoilProgram has a script be at the path where the door was started from.
func spoilProgram(script string) func(r *running) (restore func() error, err error) {
	return func(r *running) (restore func() error, err error) {
		aside := r.program + ".aside"
		if err := os.Rename(r.program, aside); err != nil {
			return nil, err
		}
		restore = func() error { return os.Rename(aside, r.program) }
		return restore, replaceFile(r.program, []byte("#!/bin/sh\n"+script+"\n"), 0o700)
	}
}

// replaceFile writes a file anew in one step, as those do who write configurations and programs that somebody may read.
func replaceFile(path string, content []byte, mode os.FileMode) error {
	f := filepath.Join(filepath.Dir(path), ".new")
	if err := os.WriteFile(f, content, mode); err != nil {
		return err
	}
	return os.Rename(f, path)
}
