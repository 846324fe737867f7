package main

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/go-usher/usher/internal/config"
)

// repository is the root of the module.
const repository = "../.."

// document is a Markdown file of the repository.
type document struct {
	path  string // from the root
	lines []string
}

// documents are all Markdown files, but for those of tools and builds.
func documents(t *testing.T) []document {
	t.Helper()
	var all []document
	err := filepath.WalkDir(repository, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(e.Name(), ".") && path != repository
		if e.IsDir() && (hidden || e.Name() == "dist") {
			return filepath.SkipDir
		}
		if e.IsDir() || filepath.Ext(path) != ".md" {
			return nil
		}
		all = append(all, readDocument(t, path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 5 {
		t.Fatalf("found only %d documents", len(all))
	}
	return all
}

func readDocument(t *testing.T, path string) document {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fromRoot, err := filepath.Rel(repository, path)
	if err != nil {
		t.Fatal(err)
	}
	return document{filepath.ToSlash(fromRoot), strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")}
}

// block is a fenced block of code.
type block struct {
	language string // the first word of what follows the fence
	line     int    // of its first line of text
	text     string // without the fence's indentation; ends in a newline unless it is empty
}

// split returns the blocks, and the lines with those of blocks, fences included, empty: prose.
func (d *document) split() (blocks []block, prose []string) {
	var open *block
	indent := ""
	for i, line := range d.lines {
		text := strings.TrimLeft(line, " ")
		isFence := strings.HasPrefix(text, "```")
		switch {
		case isFence && open == nil:
			language, _, _ := strings.Cut(strings.TrimPrefix(text, "```"), " ")
			open = &block{language: language, line: i + 2}
			indent = line[:len(line)-len(text)]
			line = ""
		case isFence:
			blocks = append(blocks, *open)
			open, line = nil, ""
		case open != nil:
			open.text += strings.TrimPrefix(line, indent) + "\n"
			line = ""
		}
		prose = append(prose, line)
	}
	return blocks, prose
}

// A block of YAML is a configuration. One without listeners, which should be marked "yaml fragment", is given
// one.
func TestEveryConfigurationInTheDocumentsIsValid(t *testing.T) {
	checked := 0
	for _, d := range documents(t) {
		blocks, _ := d.split()
		for _, b := range blocks {
			if b.language != "yaml" {
				continue
			}
			checked++
			text := b.text
			if !strings.Contains("\n"+text, "\nlisteners:") {
				text += "listeners: [{name: web, address: \":8080\"}]\n"
			}
			if _, err := config.Parse("block", []byte(text)); err != nil {
				t.Errorf("%s:%d: %v", d.path, b.line, err)
			}
		}
	}
	if checked == 0 {
		t.Error("there is no configuration in any document")
	}
}

// link is a Markdown link or image, its target in the first group.
var link = regexp.MustCompile(`\]\(([^()\s]+)\)`)

func TestLinksBetweenDocumentsResolve(t *testing.T) {
	all := documents(t)
	anchors := make(map[string]map[string]bool)
	for _, d := range all {
		anchors[d.path] = d.anchors()
	}
	for _, d := range all {
		_, prose := d.split()
		for i, line := range prose {
			for _, found := range link.FindAllStringSubmatch(line, -1) {
				if err := d.follow(found[1], anchors); err != nil {
					t.Errorf("%s:%d: %v", d.path, i+1, err)
				}
			}
		}
	}
}

// follow says what is wrong with a link to a file of the repository, or to a heading in it.
func (d *document) follow(target string, anchors map[string]map[string]bool) error {
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	if u.Scheme != "" {
		return nil
	}
	path := d.path
	if u.Path != "" {
		path = filepath.ToSlash(filepath.Join(filepath.Dir(d.path), u.Path))
	}
	if _, err := os.Stat(filepath.Join(repository, path)); err != nil {
		return err
	}
	if u.Fragment != "" && !anchors[path][u.Fragment] {
		return fmt.Errorf("%s has no heading for #%s", path, u.Fragment)
	}
	return nil
}

// anchors are those that GitHub gives to headings.
func (d *document) anchors() map[string]bool {
	all := make(map[string]bool)
	_, prose := d.split()
	for _, line := range prose {
		text := strings.TrimLeft(line, "#")
		if level := len(line) - len(text); level == 0 || level > 6 || !strings.HasPrefix(text, " ") {
			continue
		}
		name := anchor(strings.TrimSpace(text))
		unique := name
		for n := 1; all[unique]; n++ {
			unique = fmt.Sprintf("%s-%d", name, n)
		}
		all[unique] = true
	}
	return all
}

func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}
