package config

import (
	"io"
	"os"
	"reflect"
)

// Default is the configuration without a file: these listeners, or one at ":8080", auto routes, no admin,
// and all else as in a file that does not mention it. An address that is given twice counts once. The
// addresses are not checked.
func Default(listen ...string) *Config {
	if len(listen) == 0 {
		listen = []string{":8080"}
	}
	c := new(Config)
	setDefaults(c)
	c.AutoRoutes = true
	seen := make(map[string]bool)
	for _, address := range listen {
		if seen[address] {
			continue
		}
		seen[address] = true
		l := Listener{}
		setDefaults(&l)
		l.Name, l.Address = address, address
		c.Listeners = append(c.Listeners, l)
	}
	return c
}

// setDefaults sets a struct of the configuration, to which v points, to its defaults.
func setDefaults(v any) {
	e := reflect.ValueOf(v).Elem()
	e.Set(model().structs[e.Type()].initial)
}

// Load reads a file and makes a configuration of it. In that all defaults are filled in, listeners and
// routes have names, and hosts are in the form in which clients' are compared with them.
//
// The error is that of reading the file, or an [Errors] with all that is wrong in it. Whether this machine
// has the users, groups and addresses that it names is not looked at; see [Check].
func Load(path string) (*Config, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// Control returns control and endpoints.dir as a file has them, whatever else is wrong with it: a door that was started
// when the file was right can still be found. The error is that of Load. What could not be read is at its default.
func Control(path string) (control, dir string, err error) {
	c, initial := new(Config), new(Config)
	setDefaults(c)
	setDefaults(initial)
	data, err := read(path)
	if err != nil {
		return initial.Control, initial.Endpoints.Dir, err
	}
	d := newDocument(path, data)
	err = d.decodeInto(c)
	if d.broken[controlPath.String()] {
		c.Control = initial.Control
	}
	if d.broken[endpointsPath.key("dir").String()] {
		c.Endpoints.Dir = initial.Endpoints.Dir
	}
	return c.Control, c.Endpoints.Dir, err
}

// Parse is Load for a file that has been read; name is what errors call it.
func Parse(name string, data []byte) (*Config, error) {
	d := newDocument(name, data)
	return d.config()
}

// Check is Load that also tells what may be meant but should be looked at: users and groups that this
// machine does not know, and what has no effect. The file may be for another machine, so these are no errors.
func Check(path string) (c *Config, warnings Errors, err error) {
	data, err := read(path)
	if err != nil {
		return nil, nil, err
	}
	d := newDocument(path, data)
	c, err = d.config()
	if err != nil {
		return nil, nil, err
	}
	d.lint(c)
	d.warnings.sort()
	return c, d.warnings, nil
}

// read reads no more than Parse needs to see that there is too much: the file may be a pipe.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxFile+1))
}

// config decodes and validates.
func (d *document) config() (*Config, error) {
	c := new(Config)
	setDefaults(c)
	if err := d.decodeInto(c); err != nil {
		return nil, err
	}
	return c, nil
}

// decodeInto decodes and validates as much as can be. Files that are not YAML get no further errors.
func (d *document) decodeInto(c *Config) error {
	if err := d.errs.err(); err != nil {
		return err
	}
	if d.root == nil {
		d.fail(nil, nil, "the file is empty: listeners is missing")
		return d.errs.err()
	}
	d.decodeStruct(nil, d.resolve(d.root), reflect.ValueOf(c).Elem())
	if d.values <= maxValues { // else it would take as long again, for each thing that is looked up
		d.validate(c)
	}
	return d.errs.err()
}
