package config

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"sync"
)

// comments has the doc comments of the types and fields in config.go, by name: Limits, Limits.PeekTimeout.
var comments = sync.OnceValue(func() map[string]string {
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		panic(err) // the compiler has read it too
	}
	found := make(map[string]string)
	for _, decl := range file.Decls {
		g, ok := decl.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE {
			continue
		}
		spec := g.Specs[0].(*ast.TypeSpec)
		found[spec.Name.Name] = g.Doc.Text()
		if st, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range st.Fields.List {
				found[spec.Name.Name+"."+fieldName(f)] = f.Doc.Text()
			}
		}
	}
	return found
})

func fieldName(f *ast.Field) string {
	if len(f.Names) == 0 { // embedded
		return f.Type.(*ast.Ident).Name
	}
	return f.Names[0].Name
}

func (st *structType) comment() string { return strings.TrimSpace(comments()[st.typ.Name()]) }

// about is the comment without the Go name that it begins with.
func (f *field) about() string {
	return strings.TrimSpace(strings.TrimPrefix(comments()[f.owner+"."+f.goName], f.goName))
}
