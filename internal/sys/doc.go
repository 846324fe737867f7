// Package sys has the system calls that neither the standard library nor golang.org/x/sys has, and
// all unsafe code of the module.
package sys
