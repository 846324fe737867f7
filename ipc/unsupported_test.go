//go:build !(darwin || freebsd || linux || netbsd || openbsd || windows)

package ipc

import (
	"context"
	"errors"
	"testing"
)

func TestEverythingIsUnsupported(t *testing.T) {
	_, listenErr := Listen("shop")
	_, dialErr := Dial(context.Background(), "shop")
	_, _, pairErr := Pair()
	t.Setenv(inheritedEnv, "3")
	_, inheritedErr := Inherited()
	_, usersErr := Users("root")
	_, groupsErr := Groups("wheel")
	for what, err := range map[string]error{"Listen": listenErr, "Dial": dialErr, "Pair": pairErr, "Inherited": inheritedErr, "Users": usersErr, "Groups": groupsErr} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
