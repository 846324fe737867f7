package route

import (
	"strings"
	"testing"
)

func TestPathsMatchByWholeSegments(t *testing.T) {
	for _, test := range []struct {
		name, match, path string
		want              bool
	}{
		{"a path matches itself", "/api", "/api", true},
		{"a path matches itself with a slash", "/api", "/api/", true},
		{"a path matches what is below", "/api", "/api/x/y", true},
		{"a path does not match within a segment", "/api", "/apis", false},
		{"a path does not match what is above", "/api/x", "/api", false},
		{"a path with a slash matches itself", "/api/", "/api/", true},
		{"a path with a slash matches what is below", "/api/", "/api/x", true},
		{"a path with a slash does not match without", "/api/", "/api", false},
		{"the root matches itself", "/", "/", true},
		{"the root matches everything", "/", "/x/y", true},
		{"case matters", "/api", "/API", false},

		{"an encoded letter is the letter", "/api", "/%61pi", true},
		{"an encoded letter in a match is the letter", "/%61pi", "/api", true},
		{"case of an escape does not matter", "/%c3%a4", "/%C3%A4", true},
		{"a letter beyond ASCII is its UTF-8, encoded", "/ä", "/%C3%A4", true},
		{"a byte beyond ASCII that came unencoded is the same", "/%C3%A4", "/ä", true},
		{"an encoded @ is an @", "/@me", "/%40me", true},
		{"escapes are decoded once", "/a", "/%2561", false},
		{"an encoded percent sign is one", "/100%25", "/100%25/x", true},
		{"the longest segment there is matches", "/" + strings.Repeat("a", maxSegment), "/" + strings.Repeat("a", maxSegment), true},
		{"the longest segment there is matches encoded", "/" + strings.Repeat("a", maxSegment), "/" + strings.Repeat("%61", maxSegment), true},
		{"a longer segment does not match", "/" + strings.Repeat("a", maxSegment), "/" + strings.Repeat("a", maxSegment+1), false},
		{"a longer encoded segment does not match", "/" + strings.Repeat("a", maxSegment), "/" + strings.Repeat("%61", maxSegment+1), false},
		{"three dots are a name", "/...", "/.../x", true},
		{"dots within a name are part of it", "/a..b", "/a..b", true},
		{"a hidden file is a name", "/.well-known", "/%2Ewell-known/x", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := None
			if test.want {
				want = 0
			}
			checkLookup(t, []Match{{Path: test.match}}, Query{Path: test.path}, want)
		})
	}
}

// What is not plain has a route only where all that servers make of it leads to the same one.
func TestAPathThatCanBeReadInManyWaysChoosesNothing(t *testing.T) {
	const everything, root, api, apiBelow, deep, public = 0, 1, 2, 3, 4, 5
	matches := []Match{
		{},
		{Hosts: hosts("a.example"), Path: "/"},
		{Hosts: hosts("a.example"), Path: "/api"},
		{Hosts: hosts("a.example"), Path: "/api/"},
		{Hosts: hosts("a.example"), Path: "/api/x/y"},
		{Hosts: hosts("a.example"), Path: "/public"},
	}
	for _, test := range []struct {
		name, path string
		want       int
	}{
		{"two slashes before a name that has no route", "//other", root},
		{"two slashes before a name that has one", "//api", Ambiguous},
		{"two slashes after the name", "/public//a", public},
		{"two slashes after the name that hide a longer one", "/api//x/y", Ambiguous},
		{"two slashes after the name that hide none", "/api//x/z", apiBelow},
		{"two slashes at the end, of which none may be left", "/api//", Ambiguous},
		{"two slashes at the end where that does not matter", "/public//", public},
		{"slashes alone", "///", root},

		{"a dot before a name that has a route", "/./api", Ambiguous},
		{"an encoded dot before a name that has a route", "/%2e/api", Ambiguous},
		{"a dot before a name that has none", "/./other", root},
		{"a dot within a route", "/public/./a", public},
		{"a dot at the end, with which the slash may go", "/api/.", Ambiguous},
		{"a dot at the end where that does not matter", "/public/.", public},
		{"a dot that hides a longer path", "/api/./x/y", Ambiguous},
		{"a dot alone", "/.", root},

		{"an encoded slash that hides a route", "/api%2Fx", Ambiguous},
		{"an encoded slash within a route", "/public/a%2fb", public},
		{"an encoded slash where no route is", "/group%2Fproject", root},
		{"an encoded slash that hides a longer path", "/api/x%2Fy", Ambiguous},
		{"a backslash that hides a route", `/api\x`, Ambiguous},
		{"an encoded backslash that hides a route", "/api%5Cx", Ambiguous},
		{"a backslash within a route", `/public/a\b`, public},
		{"a backslash for an empty segment", `/\api`, Ambiguous},

		{"a parameter on a name that has a route", "/api;v=1/x", Ambiguous},
		{"an encoded parameter on a name that has a route", "/api%3Bv=1/x", Ambiguous},
		{"a parameter below a route", "/public/a;v=1", public},
		{"a parameter that is a segment", "/;v=1/api", Ambiguous},
		{"a parameter that hides a longer path", "/api/x;v=1/y", Ambiguous},
		{"a parameter on a name that has none", "/other;v=1", root},
		{"a parameter with a path in it", "/other;v=/api", root},

		{"two dots out of a route into another", "/public/../api", Ambiguous},
		{"two dots that stay in a route", "/public/a/../b", Ambiguous},
		{"two dots at the root", "/../api", Ambiguous},
		{"encoded dots", "/public/%2e%2E/api", Ambiguous},
		{"one encoded dot", "/public/.%2e/api", Ambiguous},
		{"two dots with a parameter", "/public/..;/api", Ambiguous},
		{"two dots with an encoded parameter", "/public/..%3bx/api", Ambiguous},
		{"two dots between backslashes", `/public\..\api`, Ambiguous},
		{"two dots between encoded slashes", "/public%2f..%2fapi", Ambiguous},
		{"two dots between encoded backslashes", "/public/a%5C..%5Cb", Ambiguous},
		{"two dots at the end", "/public/..", Ambiguous},
		{"a bad escape", "/public/%zz", Ambiguous},
		{"half an escape", "/public/%2", Ambiguous},
		{"an IIS escape", "/public/%u002e%u002e/api", Ambiguous},
		{"an encoded zero byte", "/public/%00", Ambiguous},
		{"a zero byte", "/public/\x00", Ambiguous},

		{"plain paths below it go where they should", "/api/x/y/z", deep},
		{"a plain path without a slash goes where it should", "/api", api},
	} {
		t.Run(test.name, func(t *testing.T) {
			checkLookup(t, matches, Query{Host: "a.example", Path: test.path}, test.want)
			checkLookup(t, matches, Query{Host: "b.example", Path: test.path}, everything) // it has no routes by path
		})
	}
}

func TestWhatCannotMatchDoesNotMakeAPathAmbiguous(t *testing.T) {
	matches := []Match{{Path: "/"}, {Path: "/api", Listener: "web"}}
	checkLookup(t, matches, Query{Path: "//api", Listener: "web"}, Ambiguous)
	checkLookup(t, matches, Query{Path: "//api", Listener: "tls"}, 0)
}

func TestAPathThatClimbsHasARouteWhereNoLongerOneIs(t *testing.T) {
	for _, path := range []string{"/a/../b", "/..", "/%zz", "/%00"} {
		checkLookup(t, []Match{{}}, Query{Path: path}, 0)
		checkLookup(t, []Match{{}, {Path: "/"}}, Query{Path: path}, 1)
		checkLookup(t, []Match{{}, {Path: "/"}, {Path: "/x"}}, Query{Path: path}, Ambiguous)
		checkLookup(t, []Match{{}, {Path: "/", Listener: "web"}}, Query{Path: path}, 0)
		checkLookup(t, []Match{{Hosts: hosts("a.example"), Path: "/x"}, {Path: "/"}}, Query{Host: "a.example", Path: path}, Ambiguous)
		checkLookup(t, []Match{{Hosts: hosts("a.example"), Path: "/x"}, {Path: "/"}}, Query{Host: "b.example", Path: path}, 1)
	}
}
