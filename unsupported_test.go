//go:build !(darwin || freebsd || linux || netbsd || openbsd || windows)

package usher_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/go-usher/usher"
)

func TestUnsupported(t *testing.T) {
	_, listenErr := usher.Listen("shop")
	_, dialErr := usher.Dial(context.Background(), "shop")
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	_, offerErr := usher.NewOffer(a, nil, usher.Info{})
	for what, err := range map[string]error{"Listen": listenErr, "Dial": dialErr, "NewOffer": offerErr} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v; want errors.ErrUnsupported", what, err)
		}
	}
}
