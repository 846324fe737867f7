package main

import "os/exec"

// The scripts whose processes start others are for other systems.
func ownGroup(*exec.Cmd)  {}
func killGroup(*exec.Cmd) {}
