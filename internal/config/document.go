package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// MaxFile is how many bytes a file may have. 100,000 routes need about half of them.
	MaxFile = 16 << 20

	// maxDepth is how deep values may be nested. The parser takes memory that grows with its square, and the
	// types need 6.
	maxDepth = 64

	// maxValues is how many values a file may have when its aliases are unfolded. A list of n aliases of a
	// list of n items has n² of them. 100,000 routes have about a million.
	maxValues = 4 << 20
)

// document is a file on its way to a Config: its nodes, and what was found wrong with them so far.
type document struct {
	file    string
	data    []byte
	lines   []int    // where the lines begin; made when the first error needs them
	root    ast.Node // nil in a file without content
	aliases map[*ast.AliasNode]ast.Node
	values  int // that were decoded

	errs, warnings Errors
	told           map[string]bool // position and text of the errors: an alias brings one more than once
	// broken has the paths of values that have an error, tainted those that have one within. What follows
	// from an error is not worth another.
	broken, tainted map[string]bool
}

// newDocument parses YAML. What is wrong with it as such is in errs afterwards.
func newDocument(file string, data []byte) *document {
	d := &document{
		file: file, data: bytes.TrimPrefix(data, []byte("\ufeff")), aliases: make(map[*ast.AliasNode]ast.Node),
		told: make(map[string]bool), broken: make(map[string]bool), tainted: make(map[string]bool),
	}
	if len(data) > MaxFile {
		d.failAt(1, 1, nil, "the file has more than %d bytes", MaxFile)
		return d
	}
	if i := invalidUTF8(d.data); i >= 0 {
		line := bytes.Count(d.data[:i], []byte("\n")) + 1
		column := utf8.RuneCount(d.data[bytes.LastIndexByte(d.data[:i], '\n')+1:i]) + 1
		d.failAt(line, column, nil, "the file is not UTF-8: byte %#02x", d.data[i])
		return d
	}
	d.parse()
	return d
}

func (d *document) parse() {
	tokens := mendColons(lexer.Tokenize(string(d.data)))
	if t := tooDeep(tokens); t != nil {
		d.failAt(t.Position.Line, t.Position.Column, nil, "values are nested more than %d deep", maxDepth)
		return
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // whose error would be the only one
	if err != nil {
		d.failSyntax(err)
		return
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if d.root != nil {
			d.fail(nil, doc.Body, "a second document: the configuration is one")
			return
		}
		d.root = doc.Body
	}
	d.link(d.root, make(map[string]ast.Node))
}

func (d *document) failSyntax(err error) {
	line, column, msg := 1, 1, err.Error()
	if e := yaml.Error(nil); errors.As(err, &e) {
		msg = e.GetMessage()
		if t := e.GetToken(); t != nil {
			line, column = t.Position.Line, t.Position.Column
		}
	}
	d.failAt(line, column, nil, "not YAML: %s", msg)
}

// mendColons joins what the lexer has cut in two: in a list within braces it takes every colon for that of
// a key, as in {proxy: [127.0.0.1:9000]} and {from: [::1]}. In YAML 1.2 one before a letter or digit is part of
// the word.
func mendColons(tokens token.Tokens) token.Tokens {
	mended := make(token.Tokens, 0, len(tokens))
	var open []token.Type // brackets
	for i := 0; i < len(tokens); i++ {
		t := tokens[i]
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			open = append(open, t.Type)
		case token.SequenceEndType, token.MappingEndType:
			open = open[:max(len(open)-1, 0)]
		case token.MappingValueType:
			inList := len(open) > 0 && open[len(open)-1] == token.SequenceStartType
			if !inList || i+1 == len(tokens) || !isPlain(tokens[i+1]) || !touch(t, tokens[i+1]) {
				break
			}
			last := mended[len(mended)-1] // there is one: the bracket
			if isPlain(last) && touch(last, t) {
				mended, t = mended[:len(mended)-1], join(last, t)
			} else if last.Type != token.SequenceStartType && last.Type != token.CollectEntryType {
				break // {"a":b}
			}
			t = join(t, tokens[i+1])
			i++
		}
		mended.Add(t) // which also links it to the one before
	}
	return mended
}

// isPlain tells of a scalar without quotes.
func isPlain(t *token.Token) bool {
	return t.CharacterType == token.CharacterTypeMiscellaneous && t.Indicator == token.NotIndicator
}

// touch tells whether nothing is between a plain scalar or a colon and the next token.
func touch(a, b *token.Token) bool {
	return a.Position.Line == b.Position.Line && a.Position.Column+utf8.RuneCountInString(a.Value) == b.Position.Column
}

func join(a, b *token.Token) *token.Token {
	return token.New(a.Value+b.Value, a.Origin+b.Origin, a.Position)
}

// tooDeep returns the token with which values become nested too deep, nil if there is none. Within brackets
// depth is their number; without, each indicator further to the right than the one before goes deeper.
func tooDeep(tokens token.Tokens) *token.Token {
	brackets := 0
	var columns []int
	indent := func(column int) {
		for len(columns) > 0 && columns[len(columns)-1] >= column {
			columns = columns[:len(columns)-1]
		}
		columns = append(columns, column)
	}
	for _, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			brackets++
		case token.SequenceEndType, token.MappingEndType:
			brackets = max(brackets-1, 0)
		case token.SequenceEntryType, token.MappingKeyType:
			indent(t.Position.Column)
		case token.MappingValueType:
			if brackets == 0 && t.Prev != nil {
				indent(t.Prev.Position.Column)
			}
		}
		if brackets+len(columns) > maxDepth {
			return t
		}
	}
	return nil
}

// link finds what each alias stands for: what the last anchor of that name before it is at. An anchor
// counts from the end of its value, so that no value holds itself.
func (d *document) link(n ast.Node, anchors map[string]ast.Node) {
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, e := range n.Values {
			d.link(e, anchors)
		}
	case *ast.MappingValueNode:
		d.link(n.Key, anchors)
		d.link(n.Value, anchors)
	case *ast.MappingKeyNode:
		d.link(n.Value, anchors)
	case *ast.SequenceNode:
		for _, v := range n.Values {
			d.link(v, anchors)
		}
	case *ast.TagNode:
		d.link(n.Value, anchors)
	case *ast.AnchorNode:
		d.link(n.Value, anchors)
		anchors[n.Name.String()] = n.Value
	case *ast.AliasNode:
		name := n.Value.String()
		if d.aliases[n] = anchors[name]; anchors[name] == nil {
			d.fail(nil, n, "no anchor &%s before this alias%s", name, needsQuotes(name))
		}
	}
}

// needsQuotes is for the wildcard of a host that YAML takes for an alias.
func needsQuotes(alias string) string {
	if !strings.HasPrefix(alias, ".") {
		return ""
	}
	return fmt.Sprintf(`; if it is a string, it needs quotes: "*%s"`, alias)
}

// resolve follows anchors and aliases to a value. It returns nil for an alias without an anchor, which has
// been told.
func (d *document) resolve(n ast.Node) ast.Node {
	for {
		switch a := n.(type) {
		case *ast.AnchorNode:
			n = a.Value
		case *ast.AliasNode:
			n = d.aliases[a]
		default:
			return n
		}
	}
}

// entries are those of a mapping, and of other nodes none.
func entries(n ast.Node) []*ast.MappingValueNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	return nil
}

// merged are the mappings that the entry of a merge key ("<<") brings in, the ones that win first.
func (d *document) merged(e *ast.MappingValueNode) []ast.Node {
	n := d.resolve(e.Value)
	if list, ok := n.(*ast.SequenceNode); ok {
		nodes := make([]ast.Node, len(list.Values))
		for i, v := range list.Values {
			nodes[i] = d.resolve(v)
		}
		return nodes
	}
	return []ast.Node{n}
}

// keyText is false for a key that is no scalar.
func (d *document) keyText(n ast.Node) (string, bool) {
	if k, ok := n.(*ast.MappingKeyNode); ok { // "? key"
		n = k.Value
	}
	return scalarText(d.resolve(n))
}

// scalarText is the text of a scalar as it was written, without quotes.
func scalarText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case ast.ScalarNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// find returns the nodes of the key and of the value at p. Where p leads to nothing, or to what stands for
// a list or struct by itself, they are those of the last value on the way, and exact is false. key is nil
// for an item and for the top.
func (d *document) find(p *path) (key, value ast.Node, exact bool) {
	if p == nil {
		return nil, d.resolve(d.root), true
	}
	key, value, exact = d.find(p.parent)
	if !exact {
		return key, value, false
	}
	if p.index >= 0 {
		if list, ok := value.(*ast.SequenceNode); ok && p.index < len(list.Values) {
			return nil, d.resolve(list.Values[p.index]), true
		}
		return key, value, false
	}
	if e := d.entry(value, p.name); e != nil {
		return e.Key, d.resolve(e.Value), true
	}
	return key, value, false
}

// has tells whether the file says something at p.
func (d *document) has(p *path) bool {
	_, _, exact := d.find(p)
	return exact
}

// entry looks for a key in a mapping, then in those merged into it.
func (d *document) entry(n ast.Node, name string) *ast.MappingValueNode {
	for _, e := range entries(n) {
		if text, ok := d.keyText(e.Key); ok && text == name && !e.Key.IsMergeKey() {
			return e
		}
	}
	for _, e := range entries(n) {
		if !e.Key.IsMergeKey() {
			continue
		}
		for _, m := range d.merged(e) {
			if found := d.entry(m, name); found != nil {
				return found
			}
		}
	}
	return nil
}

// fail tells of an error at a node.
func (d *document) fail(p *path, n ast.Node, format string, args ...any) {
	line, column := position(n)
	d.failAt(line, column, p, format, args...)
}

func (d *document) failAt(line, column int, p *path, format string, args ...any) {
	d.breaks(p)
	err := d.newError(line, column, p, format, args...)
	if at := fmt.Sprint(err.Line, err.Column, err.Msg); !d.told[at] {
		d.told[at] = true
		d.errs = append(d.errs, err)
	}
}

// breaks marks p as having an error, told already or now.
func (d *document) breaks(p *path) {
	d.broken[p.String()] = true
	for ; p != nil; p = p.parent {
		d.tainted[p.parent.String()] = true
	}
}

// sound tells whether p, all within it and all that it is within are without an error of their own.
func (d *document) sound(p *path) bool {
	if len(d.broken) == 0 { // as a rule; paths take time to write
		return true
	}
	if d.tainted[p.String()] {
		return false
	}
	for ; p != nil; p = p.parent {
		if d.broken[p.String()] {
			return false
		}
	}
	return true
}

// failValue tells of an error of a value that was decoded, unless one of it, in it or above it has been told.
func (d *document) failValue(p *path, format string, args ...any) {
	if d.sound(p) {
		_, n, _ := d.find(p)
		d.fail(p, n, format, args...)
	}
}

// failKey is failValue for what should not be there at all, whatever its value.
func (d *document) failKey(p *path, format string, args ...any) {
	key, n, _ := d.find(p)
	if key != nil {
		n = key
	}
	d.fail(p, n, format, args...)
}

func (d *document) warn(p *path, format string, args ...any) {
	_, n, _ := d.find(p)
	line, column := position(n)
	d.warnings = append(d.warnings, d.newError(line, column, p, format, args...))
}

// line is the line of the value at p.
func (d *document) line(p *path) int {
	_, n, _ := d.find(p)
	line, _ := position(n)
	return line
}

func (d *document) newError(line, column int, p *path, format string, args ...any) *Error {
	line = max(line, 1)
	text := d.lineText(line)
	return &Error{
		File: d.file, Line: line, Column: min(max(column, 1), utf8.RuneCountInString(text)+1),
		Path: p.String(), Msg: fmt.Sprintf(format, args...), line: text,
	}
}

func (d *document) lineText(line int) string {
	if d.lines == nil {
		d.lines = []int{0}
		for i, c := range d.data {
			if c == '\n' {
				d.lines = append(d.lines, i+1)
			}
		}
	}
	if line > len(d.lines) {
		return ""
	}
	text, _, _ := bytes.Cut(d.data[d.lines[line-1]:], []byte("\n"))
	return strings.TrimSuffix(string(text), "\r")
}

// position is where a person would say that a node begins. The token of a block mapping is its first colon.
func position(n ast.Node) (line, column int) {
	switch m := n.(type) {
	case nil:
		return 1, 1
	case *ast.MappingNode:
		if !m.IsFlowStyle && len(m.Values) > 0 {
			return position(m.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return position(m.Key)
	}
	t := n.GetToken()
	if t == nil || t.Position == nil {
		return 1, 1
	}
	return t.Position.Line, t.Position.Column
}
