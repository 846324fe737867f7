package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Error is one thing that is wrong with a file.
type Error struct {
	File string `json:"file"`

	// Line and Column are where the offending value or key begins. Both count from 1, columns in characters.
	Line   int `json:"line"`
	Column int `json:"column"`

	// Path says the same in the words of the configuration, as routes[1].match.host. It is empty for the
	// file as a whole.
	Path string `json:"path"`

	Msg string `json:"message"`

	line string // the text of the line
}

// Error is in the form that compilers use: usher.yaml:12:5: routes[1].match.host: what is wrong.
func (e *Error) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg)
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s", e.File, e.Line, e.Column, e.Path, e.Msg)
}

// excerptWidth is how many characters of a line an excerpt shows at most, so that a file that is one long
// line of JSON does not fill the screen.
const excerptWidth = 120

// Excerpt is the line, and below it a caret under the column. Both end in a newline. What does not print is
// shown as '?', lest a file send commands to a terminal.
func (e *Error) Excerpt() string {
	text := []rune(strings.ToValidUTF8(e.line, "?"))
	column := min(e.Column-1, len(text))
	if column > excerptWidth*3/4 {
		cut := column - excerptWidth/2
		text, column = text[cut:], column-cut
	}
	text = text[:min(len(text), excerptWidth)]
	pad := make([]rune, column)
	for i, r := range text {
		if r != '\t' && !unicode.IsPrint(r) {
			text[i] = '?'
		}
		if i < column {
			pad[i] = ' '
			if r == '\t' {
				pad[i] = '\t' // as wide as the one above, whatever a tab's width is
			}
		}
	}
	return string(text) + "\n" + string(pad) + "^\n"
}

// Errors is all that is wrong with a file, in the file's order. It is never empty where it is an error.
type Errors []*Error

// Error has a line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find the first *Error.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// err keeps an empty list from becoming an error that is not nil.
func (e Errors) err() error {
	if len(e) == 0 {
		return nil
	}
	e.sort()
	return e
}

// sort brings errors into the file's order.
func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// invalidUTF8 returns the offset of the first byte that is not UTF-8, -1 if there is none.
func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return -1
}
