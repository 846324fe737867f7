// Package bench measures ways for a client's connections to reach a backend, several beside one another in one run,
// so that what disturbs the machine disturbs all alike. `usher bench` and the module in bench/ use it.
package bench
