package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"time"
)

// structType is a struct of the configuration as files see it.
type structType struct {
	typ     reflect.Type
	fields  []field // those of an inline struct among them
	byName  map[string]int
	initial reflect.Value // the struct with its defaults
}

// field is a key of such a struct.
type field struct {
	owner, goName string // the Go struct that declares it, and its name there
	name          string // in a file
	typ           reflect.Type
	index         []int // for reflect.Value.FieldByIndex

	defaultText     string // empty: the zero value
	enum            []string
	min, max        bound
	required, alone bool
}

// bound is the least or the most of a number, duration, size, or of the items of a list.
type bound struct {
	text string // as in the tag; empty: there is none
	n    int64
}

// model has the structs that Config is made of, by type; order is that in which they are met.
var model = sync.OnceValue(func() *types {
	m := &types{structs: make(map[reflect.Type]*structType)}
	m.add(reflect.TypeFor[Config]())
	return m
})

type types struct {
	structs map[reflect.Type]*structType
	order   []*structType
}

// add adds a struct type and those of its fields, in the order in which they are declared. It panics on a
// tag that cannot be: any test would find it.
func (m *types) add(t reflect.Type) *structType {
	if st := m.structs[t]; st != nil {
		return st
	}
	st := &structType{typ: t, byName: make(map[string]int), initial: reflect.New(t).Elem()}
	m.structs[t] = st
	m.order = append(m.order, st)
	for i := range t.NumField() {
		sf := t.Field(i)
		if name, option, _ := strings.Cut(sf.Tag.Get("yaml"), ","); option == "inline" {
			st.inline(i, m.add(sf.Type))
		} else {
			f := newField(t, sf, name)
			st.addField(f)
			m.setDefault(st.initial.Field(i), &f)
		}
	}
	return st
}

func (m *types) setDefault(v reflect.Value, f *field) {
	if f.defaultText != "" {
		must(setText(v, f.defaultText))
	}
	if inner, ok := structIn(f.typ); ok {
		if st := m.add(inner); inner == f.typ {
			v.Set(st.initial)
		}
	}
}

// inline makes the fields of another struct, which is field i, fields of this one.
func (st *structType) inline(i int, inner *structType) {
	for _, f := range inner.fields {
		f.index = append([]int{i}, f.index...)
		st.addField(f)
	}
	st.initial.Field(i).Set(inner.initial)
}

func (st *structType) addField(f field) {
	st.byName[f.name] = len(st.fields)
	st.fields = append(st.fields, f)
}

func newField(owner reflect.Type, sf reflect.StructField, name string) field {
	f := field{
		owner: owner.Name(), goName: sf.Name, name: name, typ: sf.Type, index: sf.Index,
		defaultText: sf.Tag.Get("default"),
		min:         newBound(sf.Type, sf.Tag.Get("min")),
		max:         newBound(sf.Type, sf.Tag.Get("max")),
		required:    sf.Tag.Get("required") == "true",
		alone:       sf.Tag.Get("alone") == "true",
	}
	if enum := sf.Tag.Get("enum"); enum != "" {
		f.enum = strings.Split(enum, ",")
	}
	return f
}

// structIn returns the struct that t is, points to, or is a list of.
func structIn(t reflect.Type) (reflect.Type, bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t, t.Kind() == reflect.Struct && !isScalar(t)
}

func newBound(t reflect.Type, text string) bound {
	if text == "" {
		return bound{}
	}
	if t.Kind() == reflect.Slice {
		t = reflect.TypeFor[int]()
	}
	v := reflect.New(t).Elem()
	must(setText(v, text))
	return bound{text, v.Int()}
}

// alone is the field that a single string stands for, nil if the struct has none.
func (st *structType) alone() *field {
	for i := range st.fields {
		if st.fields[i].alone {
			return &st.fields[i]
		}
	}
	return nil
}

func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("config: the tag of a field: %v", err))
	}
}

// isScalar tells whether values of a type are single words in a file.
func isScalar(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64:
		return true
	}
	return t == reflect.TypeFor[netip.Prefix]()
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[Size]()
	prefixType   = reflect.TypeFor[netip.Prefix]()
	stringsType  = reflect.TypeFor[Strings]()
)
