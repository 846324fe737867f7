package config

import (
	"fmt"
	"reflect"
	"strings"
)

// Reference is the reference of the configuration in Markdown: a section, with a heading of the third level,
// for each mapping that a file can have. It ends in a newline.
func Reference() string {
	var b strings.Builder
	for i, st := range model().order {
		if i > 0 {
			b.WriteByte('\n')
		}
		st.writeReference(&b)
	}
	return b.String()
}

func (st *structType) writeReference(b *strings.Builder) {
	fmt.Fprintf(b, "### %s\n\n%s\n\n", st.typ.Name(), st.comment())
	inlined := ""
	for i := range st.fields {
		f := &st.fields[i]
		switch f.owner {
		case st.typ.Name():
			fmt.Fprintf(b, "- %s\n  *%s*\n", item("`"+f.name+"`", f.about()), f.facts())
		case inlined:
		default:
			inlined = f.owner
			comment := comments()[st.typ.Name()+"."+inlined]
			fmt.Fprintf(b, "- %s\n", item(link(inlined), strings.TrimPrefix(comment, inlined+" ")))
		}
	}
}

// item is the text of an item of a list, which begins with a name.
func item(name, about string) string {
	about = strings.ReplaceAll(strings.TrimSpace(about), "*", `\*`) // the asterisk of a wildcard
	return name + " " + strings.ReplaceAll(about, "\n", "\n  ")
}

// facts are what a field's type and tags say.
func (f *field) facts() string {
	facts := strings.ToUpper(f.kind()[:1]) + f.kind()[1:]
	if f.enum != nil {
		facts = "One of `" + strings.Join(f.enum, "`, `") + "`"
	}
	if f.required {
		facts += "; required"
	}
	if f.defaultText != "" {
		facts += "; default `" + f.defaultText + "`"
	} else if f.typ.Kind() == reflect.Bool {
		facts += "; default `false`"
	}
	unit := ""
	if f.typ.Kind() == reflect.Slice {
		unit = " item"
	}
	if f.min.text != "" {
		facts += "; at least `" + f.min.text + "`" + unit
	}
	if f.max.text != "" {
		facts += "; at most `" + f.max.text + "`" + unit
	}
	return facts + "."
}

func (f *field) kind() string {
	inner, isStruct := structIn(f.typ)
	switch {
	case isStruct && f.typ.Kind() == reflect.Slice:
		return "a list of " + link(inner.Name())
	case isStruct:
		return "a mapping: " + link(inner.Name())
	case f.typ.Kind() == reflect.Slice && f.typ != stringsType:
		return "a list, of which each is " + describe(f.typ.Elem())
	}
	return describe(f.typ)
}

func link(name string) string { return fmt.Sprintf("[%s](#%s)", name, strings.ToLower(name)) }
