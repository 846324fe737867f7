// Package packaging has what packages for Linux distributions are made of; see README.md.
package packaging

import (
	"os"
	"regexp"
	"testing"

	"github.com/go-usher/usher/internal/config"
)

func TestThePackagedConfigurationIsRight(t *testing.T) {
	c, warnings, err := config.Check("usher.yaml")
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v, warnings: %v", err, warnings)
	}
	if !c.AutoRoutes || len(c.Listeners) != 1 || c.Admin == nil {
		t.Errorf("it has not what its README says: %+v", c)
	}
}

// What is commented out is meant to be used.
func TestTheExamplesInThePackagedConfigurationAreRight(t *testing.T) {
	text, err := os.ReadFile("usher.yaml")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile(`(?m)^#(routes:|endpoints:| +- | +\w+: )`)
	all := example.ReplaceAll(text, []byte("$1"))
	c, err := config.Parse("usher.yaml", all)
	if err != nil {
		t.Fatalf("%v in:\n%s", err, all)
	}
	if len(c.Routes) != 3 || c.Endpoints.Pin["shop"] != "www-data" {
		t.Errorf("the examples are not all there: %+v, in:\n%s", c, all)
	}
}
