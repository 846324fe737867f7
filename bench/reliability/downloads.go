//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-usher/usher/bench/internal/processes"
)

// downloads last as long as a measurement. Each has a connection of its own, one half over HTTP and the other over TLS.
type downloads struct {
	over   atomic.Bool // they are to end
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex
	breakages map[string]int
}

var errEarly = errors.New("it ended early")

// startDownloads returns when each of n downloads has begun.
func startDownloads(ctx context.Context, r *running, n int) (*downloads, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{ServerName: hosts[0], InsecureSkipVerify: true},
	}}
	ctx, cancel := context.WithCancel(ctx)
	d := &downloads{cancel: cancel, breakages: make(map[string]int)}
	begun := make(chan error, n)
	for i := range n {
		url := "http://" + r.http + pathDownload
		if i%2 == 1 {
			url = "https://" + r.tls + pathDownload
		}
		d.wg.Go(func() { d.run(ctx, client, url, begun) })
	}
	for range n {
		select {
		case err := <-begun:
			if err != nil {
				cancel()
				return nil, fmt.Errorf("a download has not begun: %w", err)
			}
		case <-time.After(patience):
			cancel()
			return nil, errors.New("a download has not begun")
		}
	}
	return d, nil
}

func (d *downloads) run(ctx context.Context, client *http.Client, url string, begun chan<- error) {
	body, err := download(ctx, client, url)
	begun <- err
	if err != nil {
		return
	}
	defer body.Close()
	var c content
	if _, err = io.Copy(&c, body); err == nil {
		err = c.check()
	}
	if err == nil && !d.over.Load() {
		err = errEarly
	}
	if err != nil {
		d.mu.Lock()
		d.breakages[plain(err).Error()]++
		d.mu.Unlock()
	}
}

func download(ctx context.Context, client *http.Client, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return nil, err
	}
	req.Host = hosts[0]
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, errors.New(res.Status)
	}
	return res.Body, nil
}

// finish has the backends let the downloads end, waits for that, and returns how those broke that did.
func (d *downloads) finish(backends []*processes.Process) map[string]int {
	d.over.Store(true)
	for _, b := range backends {
		fmt.Fprintln(b.Stdin, finish) // those that are gone do not hear it
	}
	impatient := time.AfterFunc(patience, d.cancel)
	defer impatient.Stop()
	d.wg.Wait()
	d.cancel()
	return d.breakages
}

// content is what a download brings: anything, and at the end the SHA-256 of that.
type content struct {
	hash hash.Hash
	end  []byte // the last bytes so far, which may be the sum
}

func (c *content) Write(b []byte) (int, error) {
	if c.hash == nil {
		c.hash = sha256.New()
	}
	c.end = append(c.end, b...)
	if n := len(c.end) - sha256.Size; n > 0 {
		c.hash.Write(c.end[:n])
		c.end = append(c.end[:0], c.end[n:]...)
	}
	return len(b), nil
}

func (c *content) check() error {
	if c.hash == nil || !bytes.Equal(c.hash.Sum(nil), c.end) {
		return errors.New("its content is wrong")
	}
	return nil
}
