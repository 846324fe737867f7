package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-usher/usher/internal/bench"
)

// nginxConfig is what goes into rivals/nginx-*.conf.
type nginxConfig struct {
	Root                    bool   // it runs as root, and has to be told to stay so
	Module                  string // of the stream, where that is a file of its own
	HTTP, TLS               string // addresses
	HTTPBackend, TLSBackend string
	Host                    string
}

// startNginxStream has nginx copy, by the server name of TLS.
func startNginxStream(_ context.Context, c *crew) (*bench.Running, error) {
	return c.nginx("nginx-stream.conf", true, true)
}

// startNginxHTTP has nginx be the proxy that most of them are. It is not asked to end TLS.
func startNginxHTTP(_ context.Context, c *crew) (*bench.Running, error) {
	return c.nginx("nginx-http.conf", false, false)
}

func (c *crew) nginx(name string, stream, tls bool) (*bench.Running, error) {
	program, err := installed("nginx")
	if err != nil {
		return nil, err
	}
	d := nginxConfig{Root: os.Geteuid() == 0, Host: bench.Host}
	if stream {
		if d.Module, err = nginxStreamModule(); err != nil {
			return nil, err
		}
	}
	backend, http, tlsAddress, err := c.backend()
	if err != nil {
		return nil, err
	}
	d.HTTPBackend, d.TLSBackend = http, tlsAddress
	if d.HTTP, d.TLS, err = freeAddresses(); err != nil {
		return nil, err
	}
	config, err := c.write(name, d)
	if err != nil {
		return nil, err
	}
	master, err := c.start(program, "-p", c.dir, "-c", config, "-e", "stderr")
	if err != nil {
		return nil, err
	}
	workers, err := master.workers()
	if err != nil {
		return nil, err
	}
	r := &bench.Running{HTTP: d.HTTP, Door: append([]int{master.pid()}, workers...), Backend: []int{backend.pid()}}
	if tls {
		r.TLS = d.TLS
	}
	return r, nil
}

// nginxStreamModule returns the file that the stream's module is in. In some builds it is in the program; Debian has
// it apart, in libnginx-mod-stream.
func nginxStreamModule() (string, error) {
	dirs := []string{"/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/libexec/nginx", "/opt/homebrew/lib/nginx/modules"}
	for _, dir := range dirs {
		path := filepath.Join(dir, "ngx_stream_module.so")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: nginx has no ngx_stream_module.so (Debian: libnginx-mod-stream)", bench.ErrAbsent)
}

// workers waits until the process has children, and returns them; on systems where they cannot be told, none.
func (p *process) workers() ([]int, error) {
	for from := time.Now(); time.Since(from) < startTimeout; time.Sleep(5 * time.Millisecond) {
		select {
		case <-p.ended:
			return nil, p.failure(fmt.Errorf("it has no workers"))
		default:
		}
		if found, known := children(p.pid()); len(found) > 0 || !known {
			return found, nil
		}
	}
	return nil, p.failure(fmt.Errorf("it has no workers"))
}
