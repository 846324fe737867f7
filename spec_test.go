package usher

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// TestSpecExample compares the examples in SPEC.md with what this package writes.
func TestSpecExample(t *testing.T) {
	spec, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, ok := strings.Cut(string(spec), "<!-- example: checked by TestSpecExample of package usher -->")
	if !ok {
		t.Fatal("SPEC.md has no example of a handover")
	}
	var blocks [][]byte
	inBlock := false
	for line := range strings.SplitSeq(example, "\n") {
		digits, ok := strings.CutPrefix(line, "    ")
		if ok && !inBlock {
			blocks = append(blocks, nil)
		}
		if inBlock = ok; !ok {
			continue
		}
		b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		last := len(blocks) - 1
		blocks[last] = append(blocks[last], b...)
	}
	info, err := encodeInfo(&Info{Host: "a"}, netip.AddrPort{}, netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	tk := ticket{slot: 3, generation: 7}
	want := [][]byte{
		appendOffer(nil, tk, info, []byte("GET")),
		appendAnswer(appendAnswersHead(nil), answer{ticket: tk, verb: verbClaimed}),
		appendLateAnswer(appendLateHead(nil), answer{ticket: tk, verb: verbClaimed, ago: 2500}),
		appendReport(appendEndedHead(nil, 0), wireReport{info: info, received: 3, sent: 5, duration: int64(time.Second)}),
	}
	if len(blocks) != len(want) {
		t.Fatalf("%d examples, want %d", len(blocks), len(want))
	}
	for i := range want {
		if !bytes.Equal(blocks[i], want[i]) {
			t.Errorf("example %d is % x, the package writes % x", i, blocks[i], want[i])
		}
	}
	if word := fmt.Sprintf("`0x%08x`", ticketWord(tk.generation, stateClaimed)); !strings.Contains(example, word) {
		t.Errorf("the example does not say that the word is %s", word)
	}
}
