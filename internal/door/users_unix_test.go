//go:build unix

package door

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-usher/usher/internal/faults"
)

// Two users that are not this one, and need not exist.
const (
	alice = "54321"
	bob   = "54322"
)

// TestTakersOfOtherUsers has takers that run as other users than the door, which admits them or does not.
func TestTakersOfOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start processes of other users")
	}
	for _, c := range []struct {
		name, endpoints, taker string
		served                 bool
	}{
		{"another user may not serve an endpoint", "", alice, false},
		{"one that is named may", "users: [" + alice + "]", alice, true},
		{"a third one still may not", "users: [" + alice + "]", bob, false},
		{"nor a group that is not named", "groups: [" + bob + "]", alice, false},
		{"a member of a group that is named may", "groups: [" + alice + "]", alice, true},
		{"whom the endpoint is pinned to may", "pin: {shop: " + alice + "}", alice, true},
		{"nobody else may, though named", "users: [" + bob + "], pin: {shop: " + alice + "}", bob, false},
		{"not even the door's own user", "pin: {shop: " + alice + "}", "0", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			// The takers name the socket by its path: for plain names the folder's owner and mode would matter.
			if err := os.Chmod(h.dir, 0o1777); err != nil {
				t.Fatal(err)
			}
			taker := faults.Start(t, "taker", h.path("shop"), "accept", c.taker)
			taker.Await("ready")
			h.open("routes: [{match: {}, handoff: shop}]\nendpoints: {" + strings.TrimPrefix(c.endpoints+", dir: "+h.dir, ", ") + "}")
			_, err := exchange(h.addr("web"))
			if served := err == nil; served != c.served {
				t.Errorf("served: %v, want %v: %v", served, c.served, err)
			}
			if e := h.door.Status().Endpoints[0]; c.served {
				if len(e.Takers) != 1 || e.Takers[0].User != c.taker {
					t.Errorf("the takers are %+v, want one of user %s", e.Takers, c.taker)
				}
			} else if e.State != "refused" || e.Error == "" {
				t.Errorf("the endpoint is %+v, want refused", e)
			}
		})
	}
}

// TestAnUnprivilegedDoor has a door and a taker that run as two users, neither of them root.
func TestAnUnprivilegedDoor(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start processes of other users")
	}
	h := newHouse(t)
	if err := os.Chmod(h.dir, 0o1777); err != nil {
		t.Fatal(err)
	}
	taker := faults.Start(t, "taker", h.path("shop"), "accept", bob, alice)
	taker.Await("ready")
	door := faults.Start(t, "door", "many", `
listeners: [{name: web, address: "127.0.0.1:0"}]
routes: [{match: {}, handoff: shop}]
endpoints: {dir: `+h.dir+`, pin: {shop: `+bob+`}}
`, alice)
	if _, err := exchange(strings.TrimSpace(door.Await("listening"))); err != nil {
		t.Error(err)
	}
	door.End()
	taker.End()
}

// become makes this process one of another user and of the group of the same number.
func become(id string) error {
	n, err := strconv.Atoi(id)
	if err != nil {
		return err
	}
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setgid(n); err != nil {
		return err
	}
	return syscall.Setuid(n)
}
