package config

import (
	"fmt"
	"strconv"
	"strings"
)

// path is the way from the top of the file to a value. The top itself is nil.
type path struct {
	parent *path
	name   string // of a key
	index  int    // of an item of a list; -1 for a key
}

func (p *path) key(name string) *path { return &path{parent: p, name: name, index: -1} }
func (p *path) item(i int) *path      { return &path{parent: p, index: i} }

// String is as in routes[1].match.host. A key that is no plain word, which only the operator's own names
// can be, is in brackets: endpoints.pin["shop.example.com"].
func (p *path) String() string {
	switch {
	case p == nil:
		return ""
	case p.index >= 0:
		return fmt.Sprintf("%s[%d]", p.parent, p.index)
	case !isWord(p.name):
		return fmt.Sprintf("%s[%s]", p.parent, strconv.Quote(p.name))
	case p.parent == nil:
		return p.name
	}
	return p.parent.String() + "." + p.name
}

func isWord(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}
