package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml/ast"
)

// readSchema returns the schema as an editor sees it.
func readSchema(t *testing.T) map[string]any {
	t.Helper()
	data, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheSchemaHasEveryFieldOfEveryType(t *testing.T) {
	top := readSchema(t)
	defs := top["$defs"].(map[string]any)
	for _, st := range model().order {
		name := st.typ.Name()
		object := top
		if st.typ != reflect.TypeFor[Config]() {
			object = defs[name].(map[string]any)
		}
		if choices, ok := object["anyOf"].([]any); ok { // a string may stand for it
			object = choices[len(choices)-1].(map[string]any)
		}
		if object["type"] != "object" || object["additionalProperties"] != false || object["description"] == "" {
			t.Errorf("%s is %v", name, object)
		}
		properties := object["properties"].(map[string]any)
		if got, want := slices.Sorted(maps.Keys(properties)), yamlNames(st.typ); !slices.Equal(got, want) {
			t.Errorf("%s has %v, want %v", name, got, want)
		}
		for key, p := range properties {
			if text := fmt.Sprint(p); !strings.Contains(text, "description:"+key+" ") {
				t.Errorf("%s.%s has no description that begins with its name: %v", name, key, p)
			}
		}
	}
}

// yamlNames are the keys of a struct by its tags alone.
func yamlNames(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		tag := t.Field(i).Tag.Get("yaml")
		if tag == ",inline" {
			names = append(names, yamlNames(t.Field(i).Type)...)
		} else {
			names = append(names, tag)
		}
	}
	slices.Sort(names)
	return names
}

func TestTheSchemaSaysWhatTheTagsSay(t *testing.T) {
	defs := readSchema(t)["$defs"].(map[string]any)
	tests := []struct {
		name, path string
		want       any
	}{
		{"a needed key", "Listener.required", []any{"address"}},
		{"the values of an enum", "Listener.properties.sniff.enum", []any{"auto", "tls", "http", "none"}},
		{"a default string", "Listener.properties.sniff.default", "auto"},
		{"a default duration", "Limits.properties.peek_timeout.default", "5s"},
		{"a default number", "Limits.properties.peeking.default", 10000.0},
		{"a default boolean", "Log.properties.access.default", true},
		{"the least of a number", "Limits.properties.per_ip.minimum", 1.0},
		{"the least of a number that may be 0", "Limits.properties.per_ip_rate.minimum", 0.0},
		{"the least items of a list", "Match.properties.from.minItems", 1.0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at := any(defs)
			for key := range strings.SplitSeq(tt.path, ".") {
				at = at.(map[string]any)[key]
			}
			if !reflect.DeepEqual(at, tt.want) {
				t.Errorf("%s is %v, want %v", tt.path, at, tt.want)
			}
		})
	}
}

func TestTheSchemaTakesGoodFilesAndNotBadOnes(t *testing.T) {
	unixPaths(t)
	full, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, yaml string
		ok         bool
	}{
		{"the full example", string(full), true},
		{"the shortest file", shortest, true},
		{"an admin as a string", shortest + "admin: 127.0.0.1:1", true},
		{"a handoff that also says reject: false", shortest + "routes: [{handoff: a, reject: false}]", true},
		{"no listeners", "auto_routes: true", false},
		{"an empty list of listeners", "listeners: []", false},
		{"a listener without an address", "listeners: [{name: a}]", false},
		{"an unknown key", shortest + "colour: red", false},
		{"an unknown key deep down", "listeners: [{address: ':1', limits: {colour: red}}]", false},
		{"a wrong type", shortest + "auto_routes: 5", false},
		{"a key without a value", shortest + "routes:", false},
		{"an unknown value", "listeners: [{address: ':1', sniff: ssl}]", false},
		{"a bad duration", shortest + "shutdown_timeout: 5 sconds", false},
		{"a negative duration", shortest + "shutdown_timeout: -5s", false},
		{"a duration without a unit", shortest + "shutdown_timeout: 5", false},
		{"a bad size", "listeners: [{address: ':1', limits: {peek_bytes: 16KB}}]", false},
		{"a limit of 0", "listeners: [{address: ':1', limits: {per_ip: 0}}]", false},
		{"a fraction", "listeners: [{address: ':1', limits: {per_ip: 1.5}}]", false},
		{"an empty string", "listeners: [{address: ''}]", false},
		{"a route without a target", shortest + "routes: [{match: {host: a}}]", false},
		{"reject: false alone", shortest + "routes: [{reject: false}]", false},
		{"two targets", shortest + "routes: [{handoff: a, proxy: 'b:1'}]", false},
		{"a fallback without a target", shortest + "routes: [{handoff: a, fallback: {}}]", false},
		{"true for a name", shortest + "endpoints: {pin: {a: true}}", false},
	}
	top := readSchema(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDocument("usher.yaml", []byte(tt.yaml))
			v := d.plain(d.root)
			if len(d.errs) > 0 {
				t.Fatal(d.errs)
			}
			if fault := (validation{top}).fault(top, v); (fault == "") != tt.ok {
				t.Errorf("the schema says %q", fault)
			}
			if _, err := Parse("usher.yaml", []byte(tt.yaml)); (err == nil) != tt.ok {
				t.Errorf("Parse says %v", err)
			}
		})
	}
}

// plain is a value as it would be in JSON.
func (d *document) plain(n ast.Node) any {
	switch n := d.resolve(n).(type) {
	case *ast.MappingNode:
		object := make(map[string]any)
		d.eachEntry(nil, n, reflect.TypeFor[Config](), func(name string, e *ast.MappingValueNode) {
			object[name] = d.plain(e.Value)
		})
		return object
	case *ast.SequenceNode:
		list := make([]any, len(n.Values))
		for i, v := range n.Values {
			list[i] = d.plain(v)
		}
		return list
	case *ast.IntegerNode, *ast.FloatNode:
		v, err := strconv.ParseFloat(n.GetToken().Value, 64)
		must(err)
		return v
	case ast.ScalarNode:
		return n.GetValue()
	}
	return nil
}

// validation checks values against a schema with the keywords that ours uses.
type validation struct{ top map[string]any }

// fault says what is wrong with v, empty if nothing is.
func (c validation) fault(s map[string]any, v any) string {
	for keyword, arg := range s {
		if fault := c.keyword(s, keyword, arg, v); fault != "" {
			return fault
		}
	}
	return ""
}

func (c validation) keyword(s map[string]any, keyword string, arg, v any) string {
	object, _ := v.(map[string]any)
	list, _ := v.([]any)
	text, isText := v.(string)
	ok := true
	switch keyword {
	case "$ref":
		name := strings.TrimPrefix(arg.(string), "#/$defs/")
		return c.fault(c.top["$defs"].(map[string]any)[name].(map[string]any), v)
	case "type":
		types, several := arg.([]any)
		if !several {
			types = []any{arg}
		}
		ok = slices.ContainsFunc(types, func(t any) bool { return hasType(v, t.(string)) })
	case "enum":
		ok = slices.Contains(arg.([]any), v)
	case "const":
		ok = v == arg
	case "pattern":
		ok = !isText || regexp.MustCompile(arg.(string)).MatchString(text)
	case "minLength":
		ok = !isText || float64(len(text)) >= arg.(float64)
	case "minimum":
		n, isNumber := v.(float64)
		ok = !isNumber || n >= arg.(float64)
	case "minItems":
		ok = list == nil || float64(len(list)) >= arg.(float64)
	case "required":
		for _, key := range arg.([]any) {
			_, has := object[key.(string)]
			ok = ok && has
		}
	case "anyOf":
		ok = c.matching(arg, v) > 0
	case "oneOf":
		ok = c.matching(arg, v) == 1
	case "items":
		for _, item := range list {
			if fault := c.fault(arg.(map[string]any), item); fault != "" {
				return fault
			}
		}
	case "properties":
		for key, property := range arg.(map[string]any) {
			if value, has := object[key]; has {
				if fault := c.fault(property.(map[string]any), value); fault != "" {
					return key + ": " + fault
				}
			}
		}
	case "additionalProperties":
		return c.additional(s, arg, object)
	case "$schema", "$defs", "title", "description", "default":
	default:
		return "unknown keyword " + keyword
	}
	if !ok {
		return fmt.Sprintf("%v is not of %s %v", v, keyword, arg)
	}
	return ""
}

func (c validation) additional(s map[string]any, arg any, object map[string]any) string {
	known, _ := s["properties"].(map[string]any)
	for key, value := range object {
		if known[key] != nil {
			continue
		}
		if arg == false {
			return "unknown key " + key
		}
		if fault := c.fault(arg.(map[string]any), value); fault != "" {
			return key + ": " + fault
		}
	}
	return ""
}

func (c validation) matching(schemas, v any) (n int) {
	for _, s := range schemas.([]any) {
		if c.fault(s.(map[string]any), v) == "" {
			n++
		}
	}
	return n
}

func hasType(v any, name string) bool {
	switch v := v.(type) {
	case string:
		return name == "string"
	case bool:
		return name == "boolean"
	case float64:
		return name == "number" || name == "integer" && v == float64(int64(v))
	case []any:
		return name == "array"
	case map[string]any:
		return name == "object"
	}
	return false
}

func TestEveryTypeAndFieldIsDocumentedByItsName(t *testing.T) {
	for _, st := range model().order {
		if !strings.HasPrefix(st.comment(), st.typ.Name()+" ") {
			t.Errorf("the comment of %s is %q", st.typ.Name(), st.comment())
		}
		for i := range st.fields {
			f := &st.fields[i]
			if comment := comments()[f.owner+"."+f.goName]; !strings.HasPrefix(comment, f.goName+" ") {
				t.Errorf("the comment of %s.%s is %q", f.owner, f.goName, comment)
			}
		}
	}
}

func TestTheReferenceHasASectionForEachTypeAndAnItemForEachKey(t *testing.T) {
	sections := strings.Split(Reference(), "### ")[1:]
	if len(sections) != len(model().order) {
		t.Fatalf("%d sections for %d types", len(sections), len(model().order))
	}
	for i, st := range model().order {
		name, text, _ := strings.Cut(sections[i], "\n")
		if name != st.typ.Name() {
			t.Errorf("section %d is %s, want %s", i, name, st.typ.Name())
		}
		for j := range st.fields {
			f := &st.fields[j]
			inline := f.owner != name
			if item := "\n- `" + f.name + "` "; strings.Contains(text, item) == inline {
				t.Errorf("section %s: item %q, inline %v", name, item, inline)
			}
		}
	}
	for _, line := range []string{
		"  *One of `auto`, `tls`, `http`, `none`; default `auto`.*\n",
		"  *A string; required.*\n",
		"  *A size; default `16KiB`; at least `1`; at most `64KiB`.*\n",
		"  *True or false; default `true`.*\n",
		"  *A list of [Listener](#listener); required; at least `1` item.*\n",
		"- [Target](#target) is where they go. ",
		`  labels (\*.example.com, `,
	} {
		if !strings.Contains(Reference(), line) {
			t.Errorf("%q is not in the reference", line)
		}
	}
}

var update = flag.Bool("update", false, "write the reference of the configuration into doc/operating.md")

// TestReferenceIsUpToDate compares the part of doc/operating.md that is between the markers, and writes it with
// -update.
func TestReferenceIsUpToDate(t *testing.T) {
	const (
		file  = "../../doc/operating.md"
		start = "<!-- config reference -->\n"
		end   = "<!-- end of config reference -->\n"
	)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Skip(err)
	}
	before, rest, hasStart := bytes.Cut(data, []byte(start))
	old, after, hasEnd := bytes.Cut(rest, []byte(end))
	if !hasStart || !hasEnd {
		t.Skipf("%s has no markers", file)
	}
	want := "\n" + Reference() + "\n"
	if string(old) == want {
		return
	}
	if !*update {
		t.Fatalf("%s is not up to date: go test ./internal/config -run %s -update", file, t.Name())
	}
	text := string(before) + start + want + end + string(after)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
