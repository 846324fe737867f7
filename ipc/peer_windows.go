package ipc

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/windows"

	"github.com/go-usher/usher/internal/sys"
)

// credentials says who is at the other end of the pipe h, of which this process has the end given.
//
// The process is that which opened or made the pipe, as the kernel noted then. Its user is asked of
// the connection, not only of the process: a process may have passed its handle on and ended, and
// its number may be another's by now. For a client it is that which the pipe lets us impersonate,
// for a server the owner of the pipe. If they do not fit the process's user, the peer is unknown.
func credentials(h windows.Handle, end pipeEnd) (Peer, error) {
	var pid uint32
	var err error
	if end == serverEnd {
		err = windows.GetNamedPipeClientProcessId(h, &pid)
	} else {
		err = windows.GetNamedPipeServerProcessId(h, &pid)
	}
	if err != nil {
		return Peer{}, os.NewSyscallError("GetNamedPipeProcessId", err)
	}
	sid, err := processUser(pid)
	if err != nil {
		return Peer{}, err
	}
	peer := Peer{PID: int(pid), UID: -1, GID: -1, SID: sid.String()}
	if end == clientEnd {
		return peer, checkOwner(h, sid)
	}
	client, err := clientUser(h)
	if err != nil {
		return Peer{}, err
	}
	if !client.Equals(sid) {
		return Peer{}, fmt.Errorf("process %d runs as %s, the client of the pipe as %s", pid, sid, client)
	}
	return peer, nil
}

func processUser(pid uint32) (*windows.SID, error) {
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, pid)
	if err != nil {
		return nil, os.NewSyscallError("OpenProcess", err)
	}
	defer windows.CloseHandle(process)
	var token windows.Token
	if err := windows.OpenProcessToken(process, windows.TOKEN_QUERY, &token); err != nil {
		return nil, os.NewSyscallError("OpenProcessToken", err)
	}
	defer token.Close()
	return tokenUser(token)
}

func tokenUser(token windows.Token) (*windows.SID, error) {
	user, err := token.GetTokenUser()
	if err != nil {
		return nil, os.NewSyscallError("GetTokenInformation", err)
	}
	return user.User.Sid.Copy()
}

// clientUser impersonates the client for a moment, on a thread of its own for so long.
func clientUser(h windows.Handle) (*windows.SID, error) {
	runtime.LockOSThread()
	if err := sys.ImpersonateNamedPipeClient(h); err != nil {
		runtime.UnlockOSThread()
		return nil, os.NewSyscallError("ImpersonateNamedPipeClient", err)
	}
	var token windows.Token
	err := windows.OpenThreadToken(windows.CurrentThread(), windows.TOKEN_QUERY, true, &token)
	if revertErr := windows.RevertToSelf(); revertErr != nil {
		// The thread stays locked and ends with the goroutine: no other code runs as the client.
		return nil, os.NewSyscallError("RevertToSelf", revertErr)
	}
	runtime.UnlockOSThread()
	if err != nil {
		return nil, os.NewSyscallError("OpenThreadToken", err)
	}
	defer token.Close()
	return tokenUser(token)
}

// checkOwner fails unless the pipe belongs to its server's user, or to Administrators or SYSTEM, as
// what an elevated process makes does.
func checkOwner(h windows.Handle, server *windows.SID) error {
	sd, err := windows.GetSecurityInfo(h, windows.SE_KERNEL_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return os.NewSyscallError("GetSecurityInfo", err)
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return err
	}
	if owner == nil || !(owner.Equals(server) || privileged(owner)) {
		return fmt.Errorf("the pipe belongs to %s, its server runs as %s", owner, server)
	}
	return nil
}

func privileged(sid *windows.SID) bool {
	return sid.IsWellKnown(windows.WinLocalSystemSid) || sid.IsWellKnown(windows.WinBuiltinAdministratorsSid)
}

// sameUser asks about the peer's user and, for Administrators, its groups: those of the process.
func sameUser(p Peer) error {
	sid, err := windows.StringToSid(p.SID)
	if err != nil {
		return fmt.Errorf("process %d has the unreadable SID %q: %w", p.PID, p.SID, err)
	}
	me, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return os.NewSyscallError("GetTokenInformation", err)
	}
	if sid.Equals(me.User.Sid) || privileged(sid) || isAdministrator(p.PID) {
		return nil
	}
	return fmt.Errorf("process %d runs as %s, who is neither SYSTEM nor an administrator nor %s", p.PID, sid, me.User.Sid)
}

func isAdministrator(pid int) bool {
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return false
	}
	defer windows.CloseHandle(process)
	var token windows.Token
	if err := windows.OpenProcessToken(process, windows.TOKEN_QUERY, &token); err != nil {
		return false
	}
	defer token.Close()
	return token.IsElevated()
}

func users(names []string) (Policy, error) {
	var sids []string
	for _, name := range names {
		sid, err := userSID(name)
		if err != nil {
			return nil, err
		}
		sids = append(sids, sid.String())
	}
	wanted := strings.Join(names, ", ")
	return func(p Peer) error {
		if slices.Contains(sids, p.SID) {
			return nil
		}
		return fmt.Errorf("process %d runs as %s, who is not among %s", p.PID, p.SID, wanted)
	}, nil
}

func userSID(name string) (*windows.SID, error) {
	// Only what is written out: StringToSid knows names of two letters besides, as LA, which a user can have too.
	if len(name) > 2 && strings.EqualFold(name[:2], "S-") {
		if sid, err := windows.StringToSid(name); err == nil {
			return sid, nil
		}
	}
	sid, _, kind, err := windows.LookupSID("", name)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", name, os.NewSyscallError("LookupAccountName", err))
	}
	if kind != windows.SidTypeUser && kind != windows.SidTypeWellKnownGroup { // SYSTEM and its like are of the second kind
		return nil, fmt.Errorf("%s is not a user", name)
	}
	return sid, nil
}

func groups([]string) (Policy, error) {
	return nil, fmt.Errorf("a policy for groups on Windows: %w", errors.ErrUnsupported)
}
