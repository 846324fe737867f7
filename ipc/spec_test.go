package ipc

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// TestSpecExample holds that the frame shown in SPEC.md is the one that this package sends.
func TestSpecExample(t *testing.T) {
	spec, err := os.ReadFile("../SPEC.md")
	if err != nil {
		t.Skip(err)
	}
	_, after, ok := strings.Cut(string(spec), "checked by TestSpecExample -->")
	example, _, found := strings.Cut(strings.TrimSpace(after), "\n\n")
	if !ok || !found {
		t.Fatal("SPEC.md has no example")
	}
	want, err := hex.DecodeString(strings.Join(strings.Fields(example), ""))
	if err != nil {
		t.Fatal(err)
	}
	table := entry{kind: kindFile, name: "a"}.append(nil)
	got := make([]byte, headerLen)
	header{table: uint32(len(table)), data: 2, count: 1}.put(got)
	got = append(append(got, table...), "hi"...)
	if string(got) != string(want) {
		t.Errorf("this package sends\n%x, SPEC.md shows\n%x", got, want)
	}
	entries, err := parseTable(want[headerLen:headerLen+len(table)], 1)
	if err != nil || entries[0].name != "a" {
		t.Errorf("SPEC.md's example is read as %+v, %v", entries, err)
	}
}
