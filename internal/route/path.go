package route

import (
	"errors"
	"fmt"
	"strings"
)

// maxSegment is the length of the longest segment that a route's path may have, so that a buffer on the
// stack has room for a request's.
const maxSegment = 255

// node is a place in the tree of the paths of one host. The root is "/".
type node struct {
	children map[string]*node // by decoded segment
	here     rules            // routes whose path ends here, as "/api": for the node and all below
	below    rules            // routes whose path ends here with a slash, as "/api/": for what is below
}

// route finds the most specific route for a readable path, or ambiguous if the path's readings disagree.
//
// It walks down by the reading that goes deepest: everything is a slash that some server takes for one, and
// what some server drops is dropped. Up to the first byte that is read differently every other reading
// agrees. From there on the others only see less: a route's path has none of what is read differently
// (parsePath), so a route that any reading leads to lies on this walk. Hence the readings agree unless the
// walk meets a matching route after that byte.
func (n *node) route(q *Query) index {
	best := n.below.route(q)
	agreed := true
	for path := q.Path[1:]; path != ""; {
		var s segment
		s, path = cut(path)
		if s.isBlank() {
			agreed = false
			continue
		}
		agreed = agreed && s.plain
		if n = n.child(s.name); n == nil {
			break
		}
		if found := n.here.route(q); found != 0 {
			if !agreed {
				return ambiguous
			}
			best = found
		}
		if s.last {
			break
		}
		if found := n.below.route(q); found != 0 {
			if !agreed || !keepsSlash(path) {
				return ambiguous
			}
			best = found
		}
	}
	return best
}

// routeAny is route for a path that is not readable, and might be any.
func (n *node) routeAny(q *Query) index {
	if len(n.children) > 0 {
		return ambiguous
	}
	return n.below.route(q)
}

// keepsSlash tells whether the slash before rest is there in every reading. In /api/. and /api// it may not
// be.
func keepsSlash(rest string) bool {
	if rest == "" {
		return true
	}
	for rest != "" {
		var s segment
		if s, rest = cut(rest); !s.isBlank() {
			return true
		}
	}
	return false
}

// child returns the node of a segment, or nil. It must not allocate.
func (n *node) child(name string) *node {
	escapes := strings.Count(name, "%")
	if escapes == 0 {
		return n.children[name]
	}
	var buf [maxSegment]byte
	if len(name)-2*escapes > len(buf) {
		return nil
	}
	return n.children[string(appendDecoded(buf[:0], name))]
}

// grow returns the node of a path, which it makes if need be.
func (n *node) grow(segments []string) *node {
	for _, s := range segments {
		if n.children == nil {
			n.children = make(map[string]*node)
		}
		if n.children[s] == nil {
			n.children[s] = new(node)
		}
		n = n.children[s]
	}
	return n
}

// segment is a part of a request's path between what may be slashes.
type segment struct {
	name  string // still encoded, without parameters
	plain bool   // it has no parameters, and a slash proper or the end of the path follows
	last  bool   // the end of the path follows
}

// cut cuts the first segment off. It stops at all that servers take for a slash (a backslash, and the encoded
// forms of both), and a name ends at a semicolon: Java's servers drop what follows it in a segment.
func cut(path string) (s segment, rest string) {
	end, name := 0, -1
	for end < len(path) {
		c, size := next(path[end:])
		if c == '/' || c == '\\' {
			rest = path[end+size:]
			s.plain = c == '/' && size == 1
			return s.named(path[:end], name), rest
		}
		if c == ';' && name < 0 {
			name = end
		}
		end += size
	}
	s.plain, s.last = true, true
	return s.named(path, name), ""
}

func (s segment) named(text string, params int) segment {
	s.name = text
	if params >= 0 {
		s.name, s.plain = text[:params], false
	}
	return s
}

// isBlank tells whether some server drops the segment.
func (s segment) isBlank() bool { return s.name == "" || dots(s.name) == 1 }

// dots counts the dots, encoded or not, of a segment that has nothing else.
func dots(name string) (n int) {
	for name != "" {
		c, size := next(name)
		if c != '.' {
			return 0
		}
		name = name[size:]
		n++
	}
	return n
}

// isReadable tells whether all readings of a path stay below each of its segments, and are known.
func isReadable(path string) bool {
	if !strings.Contains(path, "..") && strings.IndexByte(path, '%') < 0 && strings.IndexByte(path, 0) < 0 {
		return true // as most are
	}
	for rest := path; rest != ""; {
		var s segment
		if s, rest = cut(rest); dots(s.name) == 2 {
			return false
		}
	}
	return checkEscapes(path) == nil
}

var (
	errEscape = errors.New("a '%' without two hexadecimal digits after it")
	errZero   = errors.New("a zero byte")
)

func checkEscapes(path string) error {
	for path != "" {
		c, size := next(path)
		if c == '%' && size == 1 {
			return errEscape
		}
		if c == 0 {
			return errZero
		}
		path = path[size:]
	}
	return nil
}

// next decodes the byte at the start of s, which takes size bytes there. A '%' of size 1 begins no escape.
func next(s string) (c byte, size int) {
	if s[0] != '%' || len(s) < 3 {
		return s[0], 1
	}
	high, low := unhex(s[1]), unhex(s[2])
	if high > 15 || low > 15 {
		return '%', 1
	}
	return high<<4 | low, 3
}

func unhex(c byte) byte {
	if isDigit(c) {
		return c - '0'
	}
	if c |= 0x20; 'a' <= c && c <= 'f' {
		return c - 'a' + 10
	}
	return 0xff
}

func appendDecoded(b []byte, s string) []byte {
	for s != "" {
		c, size := next(s)
		b = append(b, c)
		s = s[size:]
	}
	return b
}

// parsePath takes a route's path apart into decoded segments, and tells whether a slash follows the last.
func parsePath(path string) (segments []string, slash bool, err error) {
	if !strings.HasPrefix(path, "/") {
		return nil, false, fmt.Errorf("path %q does not start with a slash", path)
	}
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		return nil, false, fmt.Errorf("path %q has %q; a query or a fragment is not compared", path, path[i])
	}
	if err := checkEscapes(path); err != nil {
		return nil, false, fmt.Errorf("path %q has %w", path, err)
	}
	for rest := path[1:]; rest != ""; {
		var s segment
		s, rest = cut(rest)
		if err := checkSegment(s); err != nil {
			return nil, false, fmt.Errorf("path %q has %w", path, err)
		}
		segments = append(segments, string(appendDecoded(nil, s.name)))
		slash = !s.last
	}
	return segments, slash || len(segments) == 0, nil
}

func checkSegment(s segment) error {
	if !s.plain {
		return errors.New("a backslash, a semicolon or an encoded slash, which servers understand differently")
	}
	if s.name == "" {
		return errors.New("an empty segment, which servers understand differently")
	}
	if n := dots(s.name); n == 1 || n == 2 {
		return fmt.Errorf("the segment %q, which clients do not send", s.name)
	}
	if n := len(s.name) - 2*strings.Count(s.name, "%"); n > maxSegment {
		return fmt.Errorf("a segment of %d bytes, limit %d", n, maxSegment)
	}
	return nil
}
