package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// badFiles are files with all that is wrong with them, as line:column: path: message.
var badFiles = []struct {
	name, yaml string
	want       []string
}{
	// YAML itself.
	{"an empty file", "", []string{"1:1: the file is empty: listeners is missing"}},
	{"nothing but comments", "# usher\n", []string{"1:1: the file is empty: listeners is missing"}},
	{"a scalar", "usher", []string{`1:1: expected a mapping, not the string "usher"`}},
	{"a list", "- listeners", []string{"1:1: expected a mapping, not a list"}},
	{"a bracket that is not closed", shortest + "log: {level: info", []string{"2:6: not YAML: could not find flow mapping end token '}'"}},
	{"a tab as indentation", "log:\n\tlevel: info\n", []string{"2:1: not YAML: found character '\t' that cannot start any token"}},
	{"a key without a space after its colon", "listeners:[]\n", []string{`1:1: expected a mapping, not the string "listeners:[]"`}},
	{"bytes that are not UTF-8", shortest + "# Köln K\xf6ln\n", []string{"2:9: the file is not UTF-8: byte 0xf6"}},
	{"UTF-16", "\xff\xfel\x00o\x00g\x00", []string{"1:1: the file is not UTF-8: byte 0xff"}},
	{"two documents", shortest + "---\nlisteners: [{address: ':8080'}]\n", []string{"3:1: a second document: the configuration is one"}},
	{"values nested too deep", shortest + "log: " + strings.Repeat("[", 70) + strings.Repeat("]", 70), []string{"2:69: values are nested more than 64 deep"}},
	{"lists nested too deep on one line", shortest + "routes:\n" + strings.Repeat("- ", 70) + "a", []string{"3:129: values are nested more than 64 deep"}},
	{"an alias without an anchor", shortest + "log: *log\n", []string{"2:6: no anchor &log before this alias"}},
	{"a wildcard without quotes", shortest + "routes:\n  - match: {host: *.example.com}\n    handoff: shop\n", []string{
		`3:19: no anchor &.example.com before this alias; if it is a string, it needs quotes: "*.example.com"`,
	}},
	{"a wildcard without quotes in a list", shortest + "routes:\n  - match:\n      host: [a.example, *.example.com, b.example]\n    handoff: shop\n", []string{
		`4:25: no anchor &.example.com before this alias; if it is a string, it needs quotes: "*.example.com"`,
	}},
	{"an anchor that holds its own alias", shortest + "log: &log {level: *log}\n", []string{"2:19: no anchor &log before this alias"}},
	{"an anchor that comes later", shortest + "log: *log\nendpoints: {dir: &log x}\n", []string{"2:6: no anchor &log before this alias"}},
	{"a merge of a list of aliases, one without an anchor", shortest + "log: {<<: [*a], level: info}\n", []string{"2:12: no anchor &a before this alias"}},
	{"a merge of what is no mapping", shortest + "log: {<<: [info]}\n", []string{`2:12: log: << wants mappings, not the string "info"`}},
	{"a tag", shortest + "shutdown_timeout: !!str 5s\n", []string{"2:19: shutdown_timeout: YAML tags mean nothing here"}},
	{"a key that is a list", shortest + "? [log]\n: {}\n", []string{"3:1: not YAML: found an invalid key for this map"}},

	// Keys.
	{"an unknown key", shortest + "colour: red\n", []string{"2:1: colour: unknown key"}},
	{"a misspelt key", shortest + "auto_rotes: true\n", []string{"2:1: auto_rotes: unknown key; did you mean auto_routes?"}},
	{"two letters in the wrong order", shortest + "lgo: {}\n", []string{"2:1: lgo: unknown key; did you mean log?"}},
	{"a key in the spelling of another language", shortest + "autoRoutes: true\n", []string{"2:1: autoRoutes: unknown key; did you mean auto_routes?"}},
	{"a key with a hyphen", shortest + "auto-routes: true\n", []string{"2:1: auto-routes: unknown key; did you mean auto_routes?"}},
	{"a misspelt key that is needed", "listeners:\n  - adress: ':8080'\n", []string{"2:5: listeners[0].adress: unknown key; did you mean address?"}},
	{"a key that belongs one level down", shortest + "routes:\n  - host: shop.example.com\n    handoff: shop\n", []string{"3:5: routes[0].host: unknown key; did you mean match.host?"}},
	{"a limit that belongs in limits", "listeners:\n  - address: ':8080'\n    per_ip: 5\n", []string{"3:5: listeners[0].per_ip: unknown key; did you mean limits.per_ip?"}},
	{"a misspelt target", shortest + "routes:\n  - match: {host: a}\n    hand_off: shop\n", []string{"4:5: routes[0].hand_off: unknown key; did you mean handoff?"}},
	{"an unknown key with rubbish in it", shortest + "x: {a: [1, {b: c}]}\n", []string{"2:1: x: unknown key"}},
	{"a key twice", shortest + "auto_routes: true\nlog: {}\nauto_routes: false\n", []string{"4:1: auto_routes: is there twice: first in line 2"}},
	{"an unknown key in what is merged", shortest + "log: {<<: {colour: red}}\n", []string{"2:12: log.colour: unknown key"}},
	{"no listeners", "auto_routes: true\n", []string{"1:1: listeners is missing"}},
	{"an empty list of listeners", "listeners: []\n", []string{"1:12: listeners: an empty list"}},

	// Types.
	{"a key without a value", shortest + "routes:\nauto_routes: true\n", []string{"2:8: routes: has no value: give it one, or leave it out"}},
	{"an item without a value", shortest + "routes:\n  - match: {host: [a, ]}\n    handoff: [shop,~]\n", []string{"4:20: routes[0].handoff[1]: has no value: give it one, or leave it out"}},
	{"a match that lost its conditions", shortest + "routes:\n  - match:\n    reject: true\n", []string{"3:11: routes[0].match: has no value: give it one, or leave it out"}},
	{"null", shortest + "log: null\n", []string{"2:6: log: has no value: give it one, or leave it out"}},
	{"an empty string", shortest + "routes:\n  - match: {path: ''}\n    reject: true\n", []string{"3:19: routes[0].match.path: is empty: leave it out instead"}},
	{"a list for a string", "listeners: [{address: [':8080']}]\n", []string{"1:23: listeners[0].address: expected a string, not a list"}},
	{"a mapping for a string", shortest + "routes:\n  - match: {host: {a: b}}\n    reject: true\n", []string{"3:19: routes[0].match.host: expected a string or a list of them, not a mapping"}},
	{"a string for a list", shortest + "routes: shop\n", []string{`2:9: routes: expected a list, not the string "shop"`}},
	{"a mapping for a list", "listeners: {address: ':8080'}\n", []string{"1:12: listeners: expected a list, not a mapping"}},
	{"a string for a mapping", shortest + "log: info\n", []string{`2:6: log: expected a mapping, not the string "info"`}},
	{"a list for a mapping of names", shortest + "endpoints: {pin: [shop]}\n", []string{"2:18: endpoints.pin: expected a mapping of names to strings, not a list"}},
	{"true for a string", shortest + "endpoints: {users: [true]}\n", []string{"2:21: endpoints.users[0]: expected a string, not true"}},
	{"yes for true", shortest + "auto_routes: yes\n", []string{`2:14: auto_routes: expected true or false, not the string "yes"`}},
	{"a number for true", shortest + "auto_routes: 1\n", []string{"2:14: auto_routes: expected true or false, not a number"}},
	{"a string for a number", "listeners: [{address: ':1', limits: {per_ip: '5'}}]\n", []string{`1:46: listeners[0].limits.per_ip: expected a whole number, not the string "5"`}},
	{"a fraction for a number", "listeners: [{address: ':1', limits: {per_ip: 1.5}}]\n", []string{`1:46: listeners[0].limits.per_ip: "1.5" is not a whole number`}},
	{"a hexadecimal number", "listeners: [{address: ':1', limits: {per_ip: 0x10}}]\n", []string{`1:46: listeners[0].limits.per_ip: "0x10" is not a whole number`}},
	{"a number beyond all", "listeners: [{address: ':1', limits: {per_ip: 99999999999999999999}}]\n", []string{`1:46: listeners[0].limits.per_ip: expected a whole number, not the string "99999999999999999999"`}},
	{"a control character", shortest + "endpoints: {dir: \"/run\\0/usher\"}\n", []string{`2:18: endpoints.dir: "/run\x00/usher" has a control character`}},
	{"a name of two lines", shortest + "routes:\n  - name: |\n      two\n      lines\n    reject: true\n", []string{`3:11: routes[0].name: "two\nlines\n" has a control character`}},
	{"a value that an alias brings twice", shortest + "routes:\n  - {match: {host: a, from: &x [x]}, handoff: a}\n  - {match: {host: b, from: *x}, handoff: b}\n", []string{`3:33: routes[0].match.from[0]: "x" is neither a network, as 10.0.0.0/8, nor an address`}},

	// Values.
	{"a bad duration", shortest + "shutdown_timeout: 5 sconds\n", []string{`2:19: shutdown_timeout: "5 sconds" is not a duration, as 500ms, 5s or 1m30s`}},
	{"a duration without a unit", shortest + "shutdown_timeout: 5\n", []string{`2:19: shutdown_timeout: "5" is not a duration, as 500ms, 5s or 1m30s`}},
	{"a duration of 0", shortest + "shutdown_timeout: 0s\n", []string{"2:19: shutdown_timeout: 0s is too little: the least is 1ms"}},
	{"a negative duration", shortest + "shutdown_timeout: -5s\n", []string{"2:19: shutdown_timeout: -5s is too little: the least is 1ms"}},
	{"a negative interval", shortest + "routes:\n  - proxy: 'a:1'\n    health: {interval: -1s}\n", []string{"4:24: routes[0].health.interval: -1s is too little: the least is 0s"}},
	{"a size in KB", "listeners: [{address: ':1', limits: {peek_bytes: 16KB}}]\n", []string{`1:50: listeners[0].limits.peek_bytes: "16KB" is not a size: a number, or one with the unit KiB or MiB (1024s), kB or MB (1000s)`}},
	{"a size in words", "listeners: [{address: ':1', limits: {peek_bytes: much}}]\n", []string{`1:50: listeners[0].limits.peek_bytes: "much" is not a size: a number, or one with the unit KiB or MiB (1024s), kB or MB (1000s)`}},
	{"a size of 0", "listeners: [{address: ':1', limits: {peek_bytes: 0}}]\n", []string{"1:50: listeners[0].limits.peek_bytes: 0 is too little: the least is 1"}},
	{"a size beyond what can be peeked", "listeners: [{address: ':1', limits: {peek_bytes: 1MiB}}]\n", []string{"1:50: listeners[0].limits.peek_bytes: 1MiB is too much: the most is 64KiB"}},
	{"a size one byte beyond what can be peeked", "listeners: [{address: ':1', limits: {peek_bytes: 65537}}]\n", []string{"1:50: listeners[0].limits.peek_bytes: 65537 is too much: the most is 64KiB"}},
	{"a size beyond all", "listeners: [{address: ':1', limits: {peek_bytes: 99999999999999MiB}}]\n", []string{"1:50: listeners[0].limits.peek_bytes: 99999999999999MiB is out of range"}},
	{"limits of 0 and less", "listeners:\n  - address: ':1'\n    limits:\n      peeking: 0\n      per_ip: -1\n      per_ip_rate: -1\n", []string{
		"4:16: listeners[0].limits.peeking: 0 is too little: the least is 1",
		"5:15: listeners[0].limits.per_ip: -1 is too little: the least is 1",
		"6:20: listeners[0].limits.per_ip_rate: -1 is too little: the least is 0",
	}},
	{"a level that there is not", shortest + "log: {level: warning, format: yaml}\n", []string{
		`2:14: log.level: "warning" is none of debug, info, warn, error`,
		`2:31: log.format: "yaml" is none of text, json`,
	}},
	{"a sniff that there is not", "listeners: [{address: ':1', sniff: HTTP}]\n", []string{`1:36: listeners[0].sniff: "HTTP" is none of auto, tls, http, none; did you mean http?`}},
	{"a network with bits of an address", "listeners: [{address: ':1', accept_proxy: [10.0.0.1/8]}]\n", []string{"1:44: listeners[0].accept_proxy[0]: 10.0.0.1/8 is an address in the network 10.0.0.0/8: write 10.0.0.0/8 or 10.0.0.1"}},
	{"an IPv4 network in IPv6", "listeners: [{address: ':1', accept_proxy: ['::ffff:10.0.0.0/104']}]\n", []string{"1:44: listeners[0].accept_proxy[0]: ::ffff:10.0.0.0/104 is an IPv4 address in an IPv6 one: write the IPv4 address"}},
	{"what is no network", "listeners: [{address: ':1', accept_proxy: [lan, 10.0.0.0/33, 'fe80::1%eth0']}]\n", []string{
		`1:44: listeners[0].accept_proxy[0]: "lan" is neither a network, as 10.0.0.0/8, nor an address`,
		`1:49: listeners[0].accept_proxy[1]: "10.0.0.0/33" is neither a network, as 10.0.0.0/8, nor an address`,
		`1:62: listeners[0].accept_proxy[2]: "fe80::1%eth0" is neither a network, as 10.0.0.0/8, nor an address`,
	}},

	// Listeners.
	{"a listener without an address", "listeners:\n  - name: web\n", []string{"2:5: listeners[0]: address is missing"}},
	{"an address without a port", "listeners: [{address: localhost}]\n", []string{`1:23: listeners[0].address: "localhost" is not HOST:PORT, or [IPV6]:PORT: missing port in address`}},
	{"a port alone", "listeners: [{address: 8080}]\n", []string{`1:23: listeners[0].address: "8080" is not HOST:PORT, or [IPV6]:PORT: missing port in address`}},
	{"an IPv6 address without brackets", "listeners: [{address: '::1:80'}]\n", []string{`1:23: listeners[0].address: "::1:80" is not HOST:PORT, or [IPV6]:PORT: too many colons in address`}},
	{"a port that is a name", "listeners: [{address: ':http'}]\n", []string{`1:23: listeners[0].address: ":http" has the port "http": it must be a number up to 65535`}},
	{"a port that is too large", "listeners: [{address: ':65536'}]\n", []string{`1:23: listeners[0].address: ":65536" has the port "65536": it must be a number up to 65535`}},
	{"a host that no address has", "listeners: [{address: 'a b:80'}]\n", []string{`1:23: listeners[0].address: "a b:80": host "a b" has ' '; names have letters, digits, '.', '-' and '_'`}},
	{"an address that is a pattern", "listeners: [{address: '*:80'}]\n", []string{`1:23: listeners[0].address: "*:80": for all addresses leave the host out`}},
	{"a listener at a Unix socket", "listeners: [{address: 'unix:/run/web'}]\n", []string{`1:23: listeners[0].address: "unix:/run/web": clients come over TCP, so it must be HOST:PORT or systemd:NAME`}},
	{"a socket of systemd without a name", "listeners: [{address: 'systemd:'}]\n", []string{`1:23: listeners[0].address: "" cannot be the name of a socket: it has 0 characters, of 1 to 255`}},
	{"a socket of systemd with a name that cannot be", "listeners: [{address: 'systemd:a:b'}]\n", []string{`1:23: listeners[0].address: "a:b" cannot be the name of a socket: it has ':'`}},
	{"two listeners with one name", "listeners:\n  - {name: web, address: ':1'}\n  - {name: web, address: ':2'}\n", []string{`3:12: listeners[1].name: "web" is also the name of listeners[0] (line 2)`}},
	{"a listener whose name is another's address", "listeners:\n  - {name: ':2', address: ':1'}\n  - {address: ':2'}\n", []string{`3:5: listeners[1]: without a name it is called ":2", as listeners[0] is (line 2): name it`}},
	{"two listeners at one address", "listeners:\n  - {name: a, address: ':80'}\n  - {name: b, address: '0.0.0.0:80'}\n  - {name: c, address: '[::]:080'}\n", []string{
		`3:24: listeners[1].address: "0.0.0.0:80" is where listeners[0] listens (line 2)`,
		`4:24: listeners[2].address: "[::]:080" is where listeners[0] listens (line 2)`,
	}},
	{"two listeners at one socket of systemd", "listeners: [{name: a, address: systemd:x}, {name: b, address: systemd:x}]\n", []string{`1:63: listeners[1].address: "systemd:x" is where listeners[0] listens (line 1)`}},
	{"the admin where a listener is", "listeners:\n  - {name: a, address: '127.0.0.1:80'}\nadmin: 127.0.0.1:80\n", []string{`3:8: admin.address: "127.0.0.1:80" is where listeners[0] listens (line 2)`}},

	// Matches.
	{"a host with a port", shortest + "routes:\n  - match: {host: 'a.example.com:80'}\n    reject: true\n", []string{`3:19: routes[0].match.host[0]: host "a.example.com:80" has a port; routes match hosts without regard to the port`}},
	{"a host that cannot be", shortest + "routes:\n  - match: {host: [a, 'b c', '*', '*x.example.com']}\n    reject: true\n", []string{
		`3:23: routes[0].match.host[1]: host "b c" has ' '; names have letters, digits, '.', '-' and '_'`,
		`3:30: routes[0].match.host[2]: host "*" has an asterisk; a wildcard is "*." before a name, and no host at all matches every host`,
		`3:35: routes[0].match.host[3]: host "*x.example.com" has an asterisk; a wildcard is "*." before a name, and no host at all matches every host`,
	}},
	{"a host twice", shortest + "routes:\n  - match: {host: [a.example.com, A.example.com.]}\n    reject: true\n", []string{`3:35: routes[0].match.host[1]: "A.example.com." is in the list twice`}},
	{"an empty list of hosts", shortest + "routes:\n  - match: {host: []}\n    reject: true\n", []string{"3:19: routes[0].match.host: an empty list: give it an item, or leave it out"}},
	{"an empty list of networks", shortest + "routes:\n  - match: {from: []}\n    reject: true\n", []string{"3:19: routes[0].match.from: an empty list: give it an item, or leave it out"}},
	{"a path that does not start with a slash", shortest + "routes:\n  - match: {path: api}\n    reject: true\n", []string{`3:19: routes[0].match.path: path "api" does not start with a slash`}},
	{"a path with dots", shortest + "routes:\n  - match: {path: /a/../b}\n    reject: true\n", []string{`3:19: routes[0].match.path: path "/a/../b" has the segment "..", which clients do not send`}},
	{"a listener that there is not", "listeners: [{name: web, address: ':80'}]\nroutes:\n  - match: {listener: wep}\n    reject: true\n", []string{`3:23: routes[0].match.listener: there is no listener "wep"; did you mean web?`}},
	{"a path where all is TLS", "listeners: [{name: s, address: ':443', sniff: tls}]\nroutes:\n  - match: {listener: s, path: /a, host: b}\n    reject: true\n", []string{"3:26: routes[0].match.path: makes no sense with the listener s, whose sniff is tls"}},
	{"an ALPN where all is HTTP", "listeners: [{name: h, address: ':80', sniff: http}]\nroutes:\n  - match: {listener: h, alpn: h2}\n    reject: true\n", []string{"3:26: routes[0].match.alpn: makes no sense with the listener h, whose sniff is http"}},
	{"what a listener that does not sniff cannot know", "listeners: [{name: n, address: ':25', sniff: none}]\nroutes:\n  - match: {listener: n, path: /a, host: b, alpn: h2}\n    reject: true\n", []string{
		"3:26: routes[0].match.path: makes no sense with the listener n, whose sniff is none",
		"3:36: routes[0].match.host: makes no sense with the listener n, whose sniff is none",
		"3:45: routes[0].match.alpn: makes no sense with the listener n, whose sniff is none",
	}},
	{"an ALPN that is too long", shortest + "routes:\n  - match: {alpn: " + strings.Repeat("x", 256) + "}\n    reject: true\n", []string{`3:19: routes[0].match.alpn: alpn "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"… has 256 bytes, and its length in one byte (RFC 7301)`}},
	{"two routes for the same", shortest + "routes:\n  - {name: a, match: {host: a}, handoff: a}\n  - {name: b, match: {host: [b, A.]}, handoff: b}\n", []string{"4:22: routes[1].match: routes[0] (line 3) matches the same: a"}},
	{"two routes for everything", shortest + "routes:\n  - {name: a, handoff: a}\n  - {name: b, match: {}, handoff: b}\n", []string{"4:22: routes[1].match: routes[0] (line 3) matches the same: everything"}},
	{"two routes with one name", shortest + "routes:\n  - {name: a, match: {host: a}, handoff: a}\n  - {name: a, match: {host: b}, handoff: b}\n", []string{`4:12: routes[1].name: "a" is also the name of routes[0] (line 3)`}},
	{"two routes whose generated names are the same", shortest + "routes:\n  - {match: {host: a}, handoff: a}\n  - {match: {host: a, alpn: h2}, handoff: b}\n", []string{`4:5: routes[1]: without a name it is called "a", as routes[0] is (line 3): name it`}},
	{"a name that is taken", shortest + "routes:\n  - {name: auto, match: {host: a}, handoff: a}\n  - {match: {host: none}, handoff: b}\n", []string{
		`3:12: routes[0].name: "auto" is the name of a route that is always there`,
		`4:5: routes[1]: without a name it is called "none", as a route that is always there: name it`,
	}},

	// Targets.
	{"no target", shortest + "routes:\n  - match: {host: a}\n", []string{"3:5: routes[0]: no target: it needs one of handoff, proxy and reject: true"}},
	{"reject: false alone", shortest + "routes:\n  - match: {host: a}\n    reject: false\n", []string{"3:5: routes[0]: no target: it needs one of handoff, proxy and reject: true"}},
	{"an empty route", shortest + "routes:\n  - {}\n", []string{"3:5: routes[0]: no target: it needs one of handoff, proxy and reject: true"}},
	{"two targets", shortest + "routes:\n  - handoff: a\n    proxy: 'b:1'\n", []string{"4:5: routes[0].proxy: a target is either handoff or proxy"}},
	{"three targets", shortest + "routes:\n  - reject: true\n    handoff: a\n    proxy: 'b:1'\n", []string{"5:5: routes[0].proxy: a target is either handoff or proxy"}},
	{"options of another target", shortest + "routes:\n  - handoff: a\n    send_proxy: v1\n    connect_timeout: 1s\n    health: {}\n", []string{
		"4:5: routes[0].send_proxy: is an option of proxy, and the target is handoff",
		"5:5: routes[0].connect_timeout: is an option of proxy, and the target is handoff",
		"6:5: routes[0].health: is an option of proxy, and the target is handoff",
	}},
	{"an option of handoff with proxy", shortest + "routes:\n  - proxy: 'a:1'\n    handoff_timeout: 1s\n", []string{"4:5: routes[0].handoff_timeout: is an option of handoff, and the target is proxy"}},
	{"options of a target that there is not", shortest + "routes:\n  - reject: true\n    handoff_timeout: 1s\n    send_proxy: v1\n", []string{
		"4:5: routes[0].handoff_timeout: is an option of handoff, and the target is reject",
		"5:5: routes[0].send_proxy: is an option of proxy, and the target is reject",
	}},
	{"an empty list of endpoints", shortest + "routes:\n  - handoff: []\n", []string{"3:14: routes[0].handoff: an empty list: give it an item, or leave it out"}},
	{"endpoints that package ipc refuses", shortest + "routes:\n  - handoff: [.a, -b, 'c d', 'é', " + strings.Repeat("x", 254) + "]\n", []string{
		`3:15: routes[0].handoff[0]: ".a" cannot be an endpoint: it starts with '.'`,
		`3:19: routes[0].handoff[1]: "-b" cannot be an endpoint: it starts with '-'`,
		`3:23: routes[0].handoff[2]: "c d" cannot be an endpoint: it has ' '; a plain name has letters, digits, '.', '-' and '_'`,
		`3:30: routes[0].handoff[3]: "é" cannot be an endpoint: it has 'é'; a plain name has letters, digits, '.', '-' and '_'`,
		"3:35: routes[0].handoff[4]: the endpoint's name has 254 bytes, the most is 253",
	}},
	{"an endpoint twice", shortest + "routes:\n  - handoff: [a, b, a]\n", []string{`3:21: routes[0].handoff[2]: "a" is in the list twice`}},
	{"backends that nobody can connect to", shortest + "routes:\n  - proxy: [a, ':80', 'a:0', 'unix:', 'a:b', '[::1:80']\n", []string{
		`3:13: routes[0].proxy[0]: "a" is not HOST:PORT, or [IPV6]:PORT: missing port in address`,
		`3:16: routes[0].proxy[1]: ":80" has no host`,
		`3:23: routes[0].proxy[2]: "a:0" has port 0, to which nothing can connect`,
		`3:30: routes[0].proxy[3]: "unix:" has no path`,
		`3:39: routes[0].proxy[4]: "a:b" has the port "b": it must be a number up to 65535`,
		`3:46: routes[0].proxy[5]: "[::1:80" is not HOST:PORT, or [IPV6]:PORT: missing ']' in address`,
	}},
	{"a PROXY protocol that there is not", shortest + "routes:\n  - proxy: 'a:1'\n    send_proxy: v3\n", []string{`4:17: routes[0].send_proxy: "v3" is none of v1, v2; did you mean v1?`}},
	{"checks with a path that is none", shortest + "routes:\n  - proxy: 'a:1'\n    health: {path: healthz}\n", []string{`4:20: routes[0].health.path: "healthz" does not start with a slash`}},
	{"checks with a host and no path", shortest + "routes:\n  - proxy: 'a:1'\n    health: {host: a}\n", []string{"4:14: routes[0].health.host: is an option of path: without one the check sends no request"}},
	{"checks with spaces", shortest + "routes:\n  - proxy: 'a:1'\n    health: {path: /a b, host: a b}\n", []string{
		`4:20: routes[0].health.path: "/a b" has a space, and would not be one word of a request`,
		`4:32: routes[0].health.host: host "a b" has ' '; names have letters, digits, '.', '-' and '_'`,
	}},
	{"checks that could not be made", shortest + "routes:\n  - proxy: 'a:1'\n    health: {path: /100%, host: a/b}\n", []string{
		`4:20: routes[0].health.path: "/100%" is no path of a URL: invalid URL escape "%"`,
		`4:33: routes[0].health.host: host "a/b" has '/'; names have letters, digits, '.', '-' and '_'`,
	}},
	{"checks of a part of a page, and a port that is none", shortest + "routes:\n  - proxy: 'a:1'\n    health: {path: '/#a', host: 'a:b'}\n", []string{
		`4:20: routes[0].health.path: "/#a" has a fragment, which is never sent`,
		`4:33: routes[0].health.host: "a:b" has the port "b": it must be a number up to 65535`,
	}},
	{"a fallback without a target", shortest + "routes:\n  - handoff: a\n    fallback: {}\n", []string{"4:15: routes[0].fallback: no target: it needs one of handoff, proxy and reject: true"}},
	{"a fallback with two targets", shortest + "routes:\n  - handoff: a\n    fallback: {handoff: b, reject: true}\n", []string{"4:28: routes[0].fallback.reject: a target is either handoff or reject"}},
	{"a fallback of a fallback", shortest + "routes:\n  - handoff: a\n    fallback: {handoff: b, fallback: {reject: true}}\n", []string{"4:28: routes[0].fallback.fallback: unknown key"}},
	{"a fallback of what rejects", shortest + "routes:\n  - reject: true\n    fallback: {handoff: b}\n", []string{"4:5: routes[0].fallback: a route that rejects has no use for it"}},

	// The rest.
	{"a pinned endpoint that cannot be", shortest + "endpoints: {pin: {'a b': root, shop.example.com: ''}}\n", []string{
		`2:19: endpoints.pin["a b"]: "a b" cannot be an endpoint: it has ' '; a plain name has letters, digits, '.', '-' and '_'`,
		`2:50: endpoints.pin["shop.example.com"]: is empty: leave it out instead`,
	}},
	{"an admin for all", shortest + "admin: ':9901'\n", []string{`2:8: admin.address: ":9901" is not a loopback address: whoever can connect can see everything; allow_remote: true allows that`}},
	{"an admin at an address of the network", shortest + "admin: {address: 192.0.2.1:9901}\n", []string{`2:18: admin.address: "192.0.2.1:9901" is not a loopback address: whoever can connect can see everything; allow_remote: true allows that`}},
	{"an admin at a name that is not known to be this machine", shortest + "admin: {address: admin.example.com:9901, allow_remote: false}\n", []string{`2:18: admin.address: "admin.example.com:9901" is not a loopback address: whoever can connect can see everything; allow_remote: true allows that`}},
	{"an admin without an address", shortest + "admin: {allow_remote: true}\n", []string{"2:8: admin: address is missing"}},
	{"an admin at no socket", shortest + "admin: 'unix:'\n", []string{`2:8: admin.address: "unix:" has no path`}},
	{"a control endpoint with a name of none", shortest + "control: .door\n", []string{`2:10: control: ".door" cannot be an endpoint: it starts with '.'`}},
	{"a control endpoint without a name", shortest + "control: ''\n", []string{`2:10: control: is empty: leave it out instead`}},
	{"an admin with more than an address", shortest + "admin: [127.0.0.1:9901]\n", []string{"2:8: admin: expected a mapping, not a list"}},
	{"more than one thing, in the order of the file", shortest + "routes:\n  - match: {host: a, path: b}\n    handoff: c d\n    send_proxy: v1\nlog: {level: x}\n", []string{
		`3:28: routes[0].match.path: path "b" does not start with a slash`,
		`4:14: routes[0].handoff[0]: "c d" cannot be an endpoint: it has ' '; a plain name has letters, digits, '.', '-' and '_'`,
		"5:5: routes[0].send_proxy: is an option of proxy, and the target is handoff",
		`6:14: log.level: "x" is none of debug, info, warn, error`,
	}},
	{"what follows from an error is not told", shortest + "routes:\n  - match: {host: 5, listener: 7x, from: [x]}\n    handoff: [a, true]\n    fallback: x\n", []string{
		`3:19: routes[0].match.host[0]: host "5" ends in a number but is no IP address`,
		`3:32: routes[0].match.listener: there is no listener "7x"`,
		`3:43: routes[0].match.from[0]: "x" is neither a network, as 10.0.0.0/8, nor an address`,
		"4:18: routes[0].handoff[1]: expected a string, not true",
		`5:15: routes[0].fallback: expected a mapping, not the string "x"`,
	}},
}

func TestEveryErrorIsToldWithItsPlace(t *testing.T) {
	for _, tt := range badFiles {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("u.yaml", []byte(tt.yaml))
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("got %v", err)
			}
			var got []string
			for _, e := range errs {
				got = append(got, strings.TrimPrefix(e.Error(), "u.yaml:"))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(tt.want, "\n\t"))
			}
		})
	}
}
