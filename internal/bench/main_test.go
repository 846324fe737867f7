package bench

import (
	"testing"

	"github.com/go-usher/usher/internal/faults"
)

func TestMain(m *testing.M) { faults.Main(m, nil) }
