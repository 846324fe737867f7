package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// decode sets v to what the file says at p. Errors do not end it.
func (d *document) decode(p *path, n ast.Node, v reflect.Value, f *field) {
	if !d.spend(n) {
		return
	}
	if n = d.resolve(n); n == nil {
		d.breaks(p)
		return
	}
	switch n.(type) {
	case *ast.NullNode:
		d.fail(p, n, "has no value: give it one, or leave it out")
		return
	case *ast.TagNode:
		d.fail(p, n, "YAML tags mean nothing here")
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch {
	case isScalar(v.Type()):
		d.decodeScalar(p, n, v, f)
	case v.Kind() == reflect.Slice:
		d.decodeList(p, n, v, f)
	case v.Kind() == reflect.Map:
		d.decodeMap(p, n, v, f)
	default:
		d.decodeStruct(p, n, v)
	}
}

// spend counts a value against maxValues.
func (d *document) spend(n ast.Node) bool {
	d.values++
	if d.values == maxValues+1 {
		d.fail(nil, n, "the file has more than %d values, with its aliases unfolded", maxValues)
	}
	return d.values <= maxValues
}

func (d *document) decodeScalar(p *path, n ast.Node, v reflect.Value, f *field) {
	text, ok := scalarText(n)
	if !ok || !fits(n, v.Type()) {
		d.fail(p, n, "expected %s, not %s", describe(v.Type()), describeNode(n))
		return
	}
	if err := setText(v, text); err != nil {
		d.fail(p, n, "%v", err)
		return
	}
	if f == nil {
		return
	}
	if len(f.enum) > 0 && !slices.Contains(f.enum, text) {
		d.fail(p, n, "%q is none of %s%s", text, strings.Join(f.enum, ", "), didYouMean(text, f.enum))
		return
	}
	if v.CanInt() {
		d.checkBounds(p, n, f, v.Int(), text)
	}
}

func (d *document) checkBounds(p *path, n ast.Node, f *field, value int64, text string) {
	if f.min.text != "" && value < f.min.n {
		d.fail(p, n, "%s is too little: the least is %s", text, f.min.text)
	}
	if f.max.text != "" && value > f.max.n {
		d.fail(p, n, "%s is too much: the most is %s", text, f.max.text)
	}
}

// fits tells whether a kind of scalar may stand for a type. Numbers may stand for strings, as those of users
// do; true and false may not, as they were hardly meant to.
func fits(n ast.Node, t reflect.Type) bool {
	switch n.(type) {
	case *ast.BoolNode:
		return t.Kind() == reflect.Bool
	case *ast.StringNode, *ast.LiteralNode:
		return t.Kind() != reflect.Bool && t.Kind() != reflect.Int
	}
	return t.Kind() != reflect.Bool
}

func (d *document) decodeList(p *path, n ast.Node, v reflect.Value, f *field) {
	list, ok := n.(*ast.SequenceNode)
	if !ok && v.Type() == stringsType && len(entries(n)) == 0 {
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		d.decodeScalar(p, n, v.Index(0), nil)
		return
	}
	if !ok {
		d.fail(p, n, "expected %s, not %s", describe(v.Type()), describeNode(n))
		return
	}
	if f.min.text != "" && len(list.Values) == 0 {
		if f.required {
			d.fail(p, n, "an empty list")
		} else {
			d.fail(p, n, "an empty list: give it an item, or leave it out")
		}
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(list.Values), len(list.Values)))
	for i, item := range list.Values {
		d.decode(p.item(i), item, v.Index(i), nil)
	}
}

// decodeMap decodes a mapping of the operator's own names to strings.
func (d *document) decodeMap(p *path, n ast.Node, v reflect.Value, f *field) {
	m := reflect.MakeMap(v.Type())
	v.Set(m)
	d.eachEntry(p, n, f.typ, func(name string, e *ast.MappingValueNode) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.decode(p.key(name), e.Value, item, nil)
		m.SetMapIndex(reflect.ValueOf(name), item)
	})
}

func (d *document) decodeStruct(p *path, n ast.Node, v reflect.Value) {
	st := model().structs[v.Type()]
	v.Set(st.initial)
	if f := st.alone(); f != nil {
		if _, ok := scalarText(n); ok {
			d.decodeScalar(p, n, v.FieldByIndex(f.index), f)
			return
		}
	}
	found := make([]bool, len(st.fields))
	isMapping := d.eachEntry(p, n, v.Type(), func(name string, e *ast.MappingValueNode) {
		i, known := st.byName[name]
		if !known {
			d.breaks(p) // what is missing may be what this was meant to be
			d.fail(p.key(name), e.Key, "unknown key%s", st.didYouMean(name))
			return
		}
		found[i] = true
		f := &st.fields[i]
		d.decode(p.key(name), e.Value, v.FieldByIndex(f.index), f)
	})
	for i := range st.fields {
		if f := &st.fields[i]; isMapping && f.required && !found[i] && !d.broken[p.String()] {
			d.fail(p, n, "%s is missing", f.name)
		}
	}
}

// eachEntry calls f for each key of a mapping and of those merged into it, once for each name, and tells
// whether it is a mapping at all.
func (d *document) eachEntry(p *path, n ast.Node, t reflect.Type, f func(name string, e *ast.MappingValueNode)) bool {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
	default:
		d.fail(p, n, "expected %s, not %s", describe(t), describeNode(n))
		return false
	}
	seen := make(map[string]ast.Node)
	for _, e := range entries(n) {
		name, ok := d.keyText(e.Key)
		switch {
		case e.Key.IsMergeKey():
		case !ok:
			d.fail(p, e.Key, "expected a word as the key, not %s", describeNode(e.Key))
		case seen[name] != nil:
			line, _ := position(seen[name])
			d.fail(p.key(name), e.Key, "is there twice: first in line %d", line)
		default:
			seen[name] = e.Key
			f(name, e)
		}
	}
	for _, e := range entries(n) {
		if e.Key.IsMergeKey() {
			d.eachMerged(p, e, seen, f)
		}
	}
	return true
}

func (d *document) eachMerged(p *path, merge *ast.MappingValueNode, seen map[string]ast.Node, f func(name string, e *ast.MappingValueNode)) {
	for _, m := range d.merged(merge) {
		if m == nil {
			d.breaks(p)
			continue
		}
		if _, ok := m.(ast.MapNode); !ok {
			d.fail(p, m, "<< wants mappings, not %s", describeNode(m))
			continue
		}
		for _, e := range entries(m) {
			if !d.spend(e) {
				return
			}
			if e.Key.IsMergeKey() {
				d.eachMerged(p, e, seen, f)
				continue
			}
			if name, ok := d.keyText(e.Key); ok && seen[name] == nil {
				seen[name] = e.Key
				f(name, e)
			}
		}
	}
}

// didYouMean also knows the keys one level down, for a key that lost its indentation or its parent.
func (st *structType) didYouMean(name string) string {
	var names []string
	for i := range st.fields {
		f := &st.fields[i]
		if f.name == name {
			continue
		}
		names = append(names, f.name)
		if inner, ok := structIn(f.typ); ok && f.typ.Kind() != reflect.Slice {
			if _, ok := model().structs[inner].byName[name]; ok {
				return fmt.Sprintf("; did you mean %s.%s?", f.name, name)
			}
		}
	}
	return didYouMean(name, names)
}

// didYouMean names the word that is closest to what was written, if one is close.
func didYouMean(text string, words []string) string {
	text = strings.ReplaceAll(strings.ToLower(text), "-", "_")
	best, least := "", max(1, min(len(text), 9)/3)+1
	for _, w := range words {
		if n := distance(text, w, least); n < least {
			best, least = w, n
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// distance is how many letters have to be put in, left out, changed, or swapped with the next to make b of a;
// or most, if that is less (a may be of any length).
func distance(a, b string, most int) int {
	if len(a)-len(b) >= most || len(b)-len(a) >= most {
		return most
	}
	d := make([][]int, len(a)+1) // d[i][j] is that of a[:i] and b[:j]
	for i := range d {
		d[i] = make([]int, len(b)+1)
		for j := range d[i] {
			switch {
			case i == 0 || j == 0:
				d[i][j] = i + j
				continue
			case a[i-1] == b[j-1]:
				d[i][j] = d[i-1][j-1]
			default:
				d[i][j] = 1 + min(d[i-1][j-1], d[i-1][j], d[i][j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], 1+d[i-2][j-2])
			}
		}
	}
	return min(d[len(a)][len(b)], most)
}

// describe is what a type is called in errors.
func describe(t reflect.Type) string {
	switch t {
	case durationType:
		return "a duration"
	case sizeType:
		return "a size"
	case prefixType:
		return "a network or address"
	case stringsType:
		return "a string or a list of them"
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Slice:
		return "a list"
	case reflect.Map:
		return "a mapping of names to strings"
	}
	return "a mapping"
}

func describeNode(n ast.Node) string {
	switch n := n.(type) {
	case *ast.StringNode:
		return fmt.Sprintf("the string %.40q", n.Value)
	case *ast.LiteralNode:
		return "a string"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return n.GetToken().Value
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.MappingKeyNode:
		return describeNode(n.Value)
	}
	return "that"
}
