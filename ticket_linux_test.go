package usher

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/go-usher/usher/internal/sys"
	"github.com/go-usher/usher/ipc"
	"golang.org/x/sys/unix"
)

func memfd(t *testing.T, size int64, seals int) *os.File {
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if seals != 0 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestPagesThatAreRefused(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	tests := []struct {
		name string
		f    *os.File
		want string
	}{
		{"one that can be shortened", memfd(t, pageSize, 0), "could still shorten it"},
		{"a short one", memfd(t, pageSize-1, pageSeals), "has 4095 bytes, want 4096"},
		{"one that may not be written to", memfd(t, pageSize, pageSeals|unix.F_SEAL_WRITE), "mmap"},
		{"a pipe", r, "not a memfd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := openPage(tt.f)
			if p != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("page %v, error %v; want one that says %q", p, err, tt.want)
			}
		})
	}
}

// TestAPageThatIsCutOff is what can happen where pages cannot be sealed: a touch faults, and is made an
// error.
func TestAPageThatIsCutOff(t *testing.T) {
	f := memfd(t, pageSize, 0)
	mem, err := mapFile(f)
	if err != nil {
		t.Fatal(err)
	}
	p := &page{words: sys.Words(mem), mayFault: true, unmap: func() { unix.Munmap(mem) }}
	p.refs.Store(1)
	defer p.release()
	tk := ticket{slot: 1, generation: 1}
	if err := p.offer(tk); err != nil {
		t.Fatal(err)
	}
	if claimed, err := p.claim(tk); !claimed || err != nil {
		t.Errorf("claimed %v, %v", claimed, err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	claimed, err := p.withdraw(tk)
	if claimed || !errors.Is(err, ipc.ErrProtocol) || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("withdraw: %v, %v", claimed, err)
	}
	if claimed, err := p.claim(tk); claimed || !errors.Is(err, errPageGone) {
		t.Errorf("claim: %v, %v", claimed, err)
	}
	if err := p.offer(tk); !errors.Is(err, errPageGone) {
		t.Errorf("offer: %v", err)
	}
}
