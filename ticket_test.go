//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usher

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-usher/usher/ipc"
)

// TestATicketIsTornOnce has a taker and a giver pull at each ticket at once, on two mappings of a page.
func TestATicketIsTornOnce(t *testing.T) {
	p, f, err := newPage()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	defer p.release()
	theirs, err := openPage(f)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.release()

	var claims, withdrawals atomic.Int64
	for generation := range uint32(2000) {
		tk := ticket{slot: uint8(generation % MaxOpen), generation: generation}
		if err := p.offer(tk); err != nil {
			t.Fatal(err)
		}
		var claimed, foundClaimed bool
		var wg sync.WaitGroup
		wg.Go(func() { claimed, _ = theirs.claim(tk) })
		wg.Go(func() { foundClaimed, _ = p.withdraw(tk) })
		wg.Wait()
		if claimed != foundClaimed {
			t.Fatalf("generation %d: the taker has claimed: %v; the giver found it claimed: %v", generation, claimed, foundClaimed)
		}
		if claimed {
			claims.Add(1)
		} else {
			withdrawals.Add(1)
		}
		if again, _ := theirs.claim(tk); again {
			t.Fatalf("generation %d was claimed once more", generation)
		}
	}
	t.Logf("%d claimed, %d withdrawn", claims.Load(), withdrawals.Load())
}

func TestATicketThatIsSpoilt(t *testing.T) {
	p, f, err := newPage()
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	defer p.release()
	tk := ticket{slot: 2, generation: 5}
	for _, spoilt := range []uint32{0, 0xffffffff, ticketWord(5, stateWithdrawn), ticketWord(4, stateOffered), ticketWord(4, stateClaimed)} {
		p.offer(tk)
		atomic.StoreUint32(p.word(2), spoilt)
		if claimed, err := p.withdraw(tk); claimed || !errors.Is(err, ipc.ErrProtocol) {
			t.Errorf("%#x: claimed %v, %v; want an error that is ErrProtocol", spoilt, claimed, err)
		}
		if claimed, _ := p.claim(tk); claimed {
			t.Errorf("%#x: it was claimed after it had been withdrawn", spoilt)
		}
	}
}

func TestGenerationsGoRound(t *testing.T) {
	p, f, err := newPage()
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	defer p.release()
	last, first := ticket{slot: MaxOpen - 1, generation: maxGeneration}, ticket{slot: MaxOpen - 1}
	for _, tk := range []ticket{last, first} {
		if err := p.offer(tk); err != nil {
			t.Fatal(err)
		}
		if claimed, err := p.claim(tk); !claimed || err != nil {
			t.Errorf("generation %#x: claimed %v, %v", tk.generation, claimed, err)
		}
		if p.words[(MaxOpen-1)*ticketStride/4-1] != 0 {
			t.Error("the slot beside was touched")
		}
	}
}
