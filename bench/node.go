package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/go-usher/usher/bench/internal/processes"
	"github.com/go-usher/usher/internal/bench"
)

// startNode has a server in Node serve alone.
func startNode(_ context.Context, c *crew) (*bench.Running, error) {
	p, r, err := c.node("alone")
	if err != nil {
		return nil, err
	}
	r.Backend = []int{p.Pid}
	return r, nil
}

// startNodeCluster has Node's cluster module accept in one process and pass the sockets to another that serves.
func startNodeCluster(_ context.Context, c *crew) (*bench.Running, error) {
	p, r, err := c.node("cluster")
	if err != nil {
		return nil, err
	}
	r.Door = []int{p.Pid}
	r.Backend, err = p.Workers()
	return r, err
}

func (c *crew) node(mode string) (*processes.Process, *bench.Running, error) {
	program, err := processes.Installed("node")
	if err != nil {
		return nil, nil, err
	}
	script, err := rivals.ReadFile("rivals/node.js")
	if err != nil {
		return nil, nil, err
	}
	path := filepath.Join(c.Dir, "node.js")
	if err := os.WriteFile(path, script, 0o600); err != nil {
		return nil, nil, err
	}
	if err := writeCertificate(filepath.Join(c.Dir, "key.pem"), filepath.Join(c.Dir, "cert.pem")); err != nil {
		return nil, nil, err
	}
	r := new(bench.Running)
	if r.HTTP, r.TLS, err = processes.FreeAddresses(); err != nil {
		return nil, nil, err
	}
	p, err := c.Start(program, path, mode, r.HTTP, r.TLS)
	return p, r, err
}

// writeCertificate makes the like of what the backends in Go have: ECDSA P-256, signed by itself.
func writeCertificate(keyPath, certPath string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{bench.Host},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	if err := os.WriteFile(keyPath, keyPEM, 0o600); err != nil {
		return err
	}
	return os.WriteFile(certPath, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600)
}
