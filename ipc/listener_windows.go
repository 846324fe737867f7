package ipc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

func isPath(endpoint string) bool { return strings.ContainsAny(endpoint, `\/`) }

const pipePrefix = `\\.\pipe\`

func resolvePath(path string) (string, error) {
	path = strings.ReplaceAll(path, "/", `\`)
	if len(path) <= len(pipePrefix) || !strings.EqualFold(path[:len(pipePrefix)], pipePrefix) {
		return "", fmt.Errorf(`endpoint %q is not the path of a pipe, which starts with %s`, path, pipePrefix)
	}
	if len(path) > 256 {
		return "", fmt.Errorf("the path of the pipe has %d characters, limit 256", len(path))
	}
	return path, nil
}

func resolveName(name string) (string, error) { return resolvePath(pipePrefix + `usher\` + name) }

// pipeBuffer is how much a pipe holds on its way, each way.
const pipeBuffer = 64 << 10

type pipeAcceptor struct{ l net.Listener }

func listen(path string, _ bool, lc *ListenConfig) (acceptor, error) {
	sd, err := securityDescriptor(lc.SecurityDescriptor)
	if err != nil {
		return nil, err
	}
	l, err := winio.ListenPipe(path, &winio.PipeConfig{
		SecurityDescriptor: sd,
		InputBufferSize:    pipeBuffer,
		OutputBufferSize:   pipeBuffer,
	})
	// go-winio asks for the first instance of the pipe; one that exists is refused like this.
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_ALREADY_EXISTS) {
		err = fmt.Errorf("another process listens at %s: %w", path, errors.Join(windows.WSAEADDRINUSE, err))
	}
	if err != nil {
		return nil, err
	}
	return &pipeAcceptor{l: l}, nil
}

// securityDescriptor adds what the configured one leaves out: this user as the owner, by which
// dialers know us, and full access for this user, Administrators and SYSTEM, and nobody else.
func securityDescriptor(configured string) (string, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return "", os.NewSyscallError("GetTokenInformation", err)
	}
	me := user.User.Sid.String()
	if configured == "" {
		configured = "D:P(A;;GA;;;" + me + ")(A;;GA;;;BA)(A;;GA;;;SY)"
	}
	if !strings.Contains(configured, "O:") {
		configured = "O:" + me + configured
	}
	return configured, nil
}

func (a *pipeAcceptor) accept() (transport, error) {
	c, err := a.l.Accept()
	if err != nil {
		return nil, pipeError(err)
	}
	return newPipeTransport(c.(winioConn), serverEnd), nil
}

func (a *pipeAcceptor) replaced() bool { return false }

func (a *pipeAcceptor) close() error { return pipeError(a.l.Close()) }

func dial(ctx context.Context, path string) (transport, error) {
	// The listener may ask who we are, and not act in our name.
	c, err := winio.DialPipeAccessImpLevel(ctx, path, windows.GENERIC_READ|windows.GENERIC_WRITE, winio.PipeImpLevelIdentification)
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return nil, fmt.Errorf("this user may not open the pipe: its listener has to let it in by ListenConfig.SecurityDescriptor: %w", err)
	}
	if err != nil {
		return nil, pipeError(err)
	}
	return newPipeTransport(c.(winioConn), clientEnd), nil
}
