package door

import (
	"context"
	"errors"
	"testing"
)

func TestATakeoverIsUnsupported(t *testing.T) {
	if _, err := ControlPath("door", ""); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("ControlPath returns %v", err)
	}
	if _, err := TakeOver(context.Background(), "door", ""); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("TakeOver returns %v", err)
	}
}
