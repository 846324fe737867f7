package usher

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"

	"github.com/go-usher/usher/ipc"
)

// A giver shares a page of memory with its taker. Each slot of the page has one ticket at a time, a
// word of 32 bits:
//
//	bit 31 … 2    generation: how often the slot has been used, so that a late taker cannot tear the next ticket
//	bit  1 … 0    state
//
//	             giver: store                   taker: compare-and-swap
//	free, or any ───────────► offered, g ─────────────────────────────► claimed, g
//	state of g-1                 │
//	                             └── giver: compare-and-swap ─────────► withdrawn, g
//
// The two swaps exclude each other: whichever comes first decides, for good. The word is only read and
// written here; what the giver knows of its slots otherwise it keeps to itself, so that a taker that
// scribbles on the page can harm none but the offers made to itself.
const (
	stateFree      = 0
	stateOffered   = 1
	stateClaimed   = 2
	stateWithdrawn = 3

	stateBits     = 2
	maxGeneration = 1<<(32-stateBits) - 1
)

// MaxOpen is how many offers one channel can have open. A ticket has a cache line of its own, a page
// as many of them as the smallest page of the systems has room for.
const (
	MaxOpen  = pageSize / ticketStride
	pageSize = 4096

	ticketStride = 64
)

// page is the memory that holds the tickets.
type page struct {
	words    []uint32 // one every ticketStride bytes
	mayFault bool     // the peer can cut the memory off under us
	unmap    func()
	refs     atomic.Int32
}

// newPage makes a page to give from and the file to send to the taker, which the caller closes.
func newPage() (*page, *os.File, error) {
	f, err := createPage()
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make the page of tickets: %w", err)
	}
	p, err := openPage(f)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return p, f, nil
}

// openPage maps the page in f, which stays the caller's to close.
func openPage(f *os.File) (*page, error) {
	p, err := mapPage(f)
	if err != nil {
		return nil, fmt.Errorf("cannot map the page of tickets: %w", err)
	}
	p.refs.Store(1)
	return p, nil
}

// retain and release count who may still look at the page: the channel, and each offer that came with it.
func (p *page) retain() { p.refs.Add(1) }

func (p *page) release() {
	if p.refs.Add(-1) == 0 {
		p.unmap()
	}
}

func (p *page) word(slot uint8) *uint32 { return &p.words[int(slot)*ticketStride/4] }

func ticketWord(generation uint32, state uint32) uint32 { return generation<<stateBits | state }

// offer writes a new ticket. The slot must be free.
func (p *page) offer(t ticket) error {
	return p.access(func() { atomic.StoreUint32(p.word(t.slot), ticketWord(t.generation, stateOffered)) })
}

// claim tears the ticket for the taker, and says whether it was there to be torn.
func (p *page) claim(t ticket) (claimed bool, err error) {
	err = p.access(func() {
		claimed = atomic.CompareAndSwapUint32(p.word(t.slot), ticketWord(t.generation, stateOffered), ticketWord(t.generation, stateClaimed))
	})
	return claimed, err
}

// withdraw tears the ticket for the giver unless the taker has claimed it. A word that is neither
// offered nor claimed is one that the taker has spoilt. The giver overwrites it all the same, so that
// no later claim can succeed, and returns an error beside false.
func (p *page) withdraw(t ticket) (claimed bool, err error) {
	offered := ticketWord(t.generation, stateOffered)
	var found uint32
	fault := p.access(func() {
		for word := p.word(t.slot); ; {
			found = atomic.LoadUint32(word)
			if found == ticketWord(t.generation, stateClaimed) {
				claimed = true
				return
			}
			if atomic.CompareAndSwapUint32(word, found, ticketWord(t.generation, stateWithdrawn)) {
				return
			}
		}
	})
	if fault == nil && !claimed && found != offered {
		return false, fmt.Errorf("%w: it wrote %#x over the ticket %#x", ipc.ErrProtocol, found, offered)
	}
	return claimed, fault
}

// isClaimed says whether the taker has claimed.
func (p *page) isClaimed(t ticket) (claimed bool, err error) {
	err = p.access(func() {
		claimed = atomic.LoadUint32(p.word(t.slot)) == ticketWord(t.generation, stateClaimed)
	})
	return claimed, err
}

var errPageGone = fmt.Errorf("%w: it cut off the page of tickets", ipc.ErrProtocol)

// access runs f, which touches the page. Where the peer can shorten the file below the page a touch
// may fault (SIGBUS, mmap(2)); that is made an error.
func (p *page) access(f func()) (err error) {
	if !p.mayFault {
		f()
		return nil
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		var fault interface{ Addr() uintptr } // of the runtime's error, see debug.SetPanicOnFault
		if e, ok := r.(error); ok && errors.As(e, &fault) {
			err = errPageGone
			return
		}
		if r != nil {
			panic(r)
		}
	}()
	f()
	return nil
}
