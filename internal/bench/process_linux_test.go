package bench

import (
	"os"
	"syscall"
	"testing"
	"time"
)

func TestCPUTimeGrowsWithWork(t *testing.T) {
	before, begin := cpuTime(os.Getpid()), time.Now()
	for cpuTime(os.Getpid())-before < 20*time.Millisecond {
		if time.Since(begin) > time.Minute {
			t.Fatalf("%v in a minute of work", cpuTime(os.Getpid())-before)
		}
	}
	if got := cpuTime(1 << 30); got != 0 {
		t.Errorf("a process that is not there has used %v", got)
	}
}

func TestResidentMemoryGrowsByWhatIsTouched(t *testing.T) {
	before, ok := residentMemory(os.Getpid())
	if !ok || before <= 0 {
		t.Fatalf("%d, %v", before, ok)
	}
	const size = 64 << 20
	touched, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(touched)
	for i := 0; i < size; i += 4096 {
		touched[i] = 1
	}
	after, _ := residentMemory(os.Getpid())
	if growth := after - before; growth < size/2 || growth > 2*size {
		t.Errorf("it has grown by %d; want some %d", growth, size)
	}
	if _, ok := residentMemory(1 << 30); ok {
		t.Error("a process that is not there has memory")
	}
}

func TestDescriptorsAreCounted(t *testing.T) {
	before := descriptorsOf(os.Getpid())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if got := descriptorsOf(os.Getpid()) - before; got != 2 {
		t.Errorf("a pipe has %d descriptors", got)
	}
	if limit := raiseDescriptors(); limit < before {
		t.Errorf("the limit is %d, and there are %d", limit, before)
	}
}
