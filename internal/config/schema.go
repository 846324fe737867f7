package config

import (
	"encoding/json"
	"reflect"
	"strings"
)

// schema is a JSON Schema, or a part of one.
type schema map[string]any

// Schema is the JSON Schema (draft 2020-12) of the configuration, for editors. What it refuses Parse refuses,
// too; Parse also looks at how values belong together, and at texts that a pattern cannot tell.
func Schema() ([]byte, error) {
	defs := schema{
		"duration": schema{"type": "string", "pattern": `^\+?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`},
		"size":     schema{"anyOf": []schema{{"type": "integer"}, {"type": "string", "pattern": `^\+?[0-9]+(KiB|MiB|kB|MB)?$`}}},
		"network":  schema{"type": "string", "minLength": 1},
		"string":   schema{"type": []string{"string", "number"}, "minLength": 1},
		"strings":  schema{"anyOf": []schema{ref("string"), {"type": "array", "items": ref("string")}}},
	}
	for _, st := range model().order[1:] {
		defs[st.typ.Name()] = st.schema()
	}
	top := model().order[0].schema()
	top["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	top["title"] = "usher"
	top["$defs"] = defs
	return json.MarshalIndent(top, "", "  ")
}

func ref(name string) schema { return schema{"$ref": "#/$defs/" + name} }

func (st *structType) schema() schema {
	properties := make(schema)
	var required []string
	for i := range st.fields {
		f := &st.fields[i]
		properties[f.name] = f.schema()
		if f.required {
			required = append(required, f.name)
		}
	}
	s := schema{
		"type": "object", "description": oneLine(st.comment()),
		"properties": properties, "additionalProperties": false,
	}
	if len(required) > 0 {
		s["required"] = required
	}
	if _, isTarget := st.byName["reject"]; isTarget {
		s["oneOf"] = []schema{
			{"required": []string{"handoff"}},
			{"required": []string{"proxy"}},
			{"required": []string{"reject"}, "properties": schema{"reject": schema{"const": true}}},
		}
	}
	if f := st.alone(); f != nil {
		return schema{"anyOf": []schema{properties[f.name].(schema), s}}
	}
	return s
}

func (f *field) schema() schema {
	s := typeSchema(f.typ)
	if f.enum != nil {
		s = schema{"enum": f.enum}
	}
	s["description"] = oneLine(f.name + " " + f.about())
	if f.defaultText != "" {
		s["default"] = f.defaultValue()
	}
	switch f.typ.Kind() {
	case reflect.Int:
		s["minimum"] = f.min.n // every one has a least
	case reflect.Slice:
		if f.min.text != "" {
			s["minItems"] = f.min.n // says nothing of the string that may stand for a list
		}
	}
	if f.typ == durationType && f.min.n == 0 {
		return schema{"anyOf": []schema{s, {"const": 0}}} // the number that needs no unit
	}
	return s
}

func typeSchema(t reflect.Type) schema {
	switch t {
	case durationType:
		return ref("duration")
	case sizeType:
		return ref("size")
	case prefixType:
		return ref("network")
	case stringsType:
		return ref("strings")
	}
	switch t.Kind() {
	case reflect.String:
		return ref("string")
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.Int:
		return schema{"type": "integer"}
	case reflect.Slice:
		return schema{"type": "array", "items": typeSchema(t.Elem())}
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": typeSchema(t.Elem())}
	case reflect.Pointer:
		return ref(t.Elem().Name())
	}
	return ref(t.Name())
}

// defaultValue is the default as JSON has it: numbers and booleans as such, all else as in a file.
func (f *field) defaultValue() any {
	if k := f.typ.Kind(); f.typ != durationType && f.typ != sizeType && (k == reflect.Int || k == reflect.Bool) {
		v := reflect.New(f.typ).Elem()
		must(setText(v, f.defaultText))
		return v.Interface()
	}
	return f.defaultText
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
