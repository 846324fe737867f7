package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"

	"github.com/go-usher/usher/bench/internal/processes"
	"github.com/go-usher/usher/internal/bench"
)

// crew is the processes of one contender.
type crew struct {
	*processes.Crew
	place *place
}

// write makes a file in the crew's folder of a template in rivals/, and returns its path.
func (c *crew) write(name string, data any) (string, error) { return c.Write(rivals, name, data) }

// maxAwaited is how many hosts of a contender that has very many are asked for before it is measured.
const maxAwaited = 100

// await returns when the contender answers rightly, as clients will ask it: for each of its hosts, over HTTP, and over
// TLS if it has that.
func (c *crew) await(ctx context.Context, r *bench.Running) error {
	hosts := r.Hosts
	if len(hosts) == 0 {
		hosts = []string{bench.Host}
	}
	for _, host := range hosts[:min(len(hosts), maxAwaited)] {
		if err := c.awaitURL(ctx, "http://"+r.HTTP+bench.PathSmall, host); err != nil {
			return err
		}
		if r.TLS == "" {
			continue
		}
		if err := c.awaitURL(ctx, "https://"+r.TLS+bench.PathSmall, host); err != nil {
			return err
		}
	}
	return nil
}

func (c *crew) awaitURL(ctx context.Context, url, host string) error {
	client := clientFor(host)
	return c.Await(ctx, func() error { return get(ctx, client, url, host, bench.SmallBody) })
}

// clientFor returns a client that connects anew for every request and takes any certificate.
func clientFor(host string) *http.Client {
	return &http.Client{Timeout: processes.StartTimeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{ServerName: host, InsecureSkipVerify: true},
	}}
}

// get wants to be answered with body.
func get(ctx context.Context, client *http.Client, url, host, body string) error {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	req.Host = host
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || string(got) != body) {
		err = fmt.Errorf("%s answered %s with %d bytes: %.100q", url, res.Status, len(got), got)
	}
	return err
}
