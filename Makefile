# Every target is a job of CI: .ci/run calls them in this order.

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
ACTIONLINT  = go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
WINE_TEST   = ../shared/wine/gotest
FUZZTIME   ?= 60s

SYSTEMS = linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 freebsd/amd64 freebsd/arm64 openbsd/amd64 openbsd/arm64 \
	netbsd/amd64 netbsd/arm64 windows/amd64 windows/arm64
# The library packages do nothing on these, and must build there all the same.
OTHERS  = plan9/amd64 js/wasm wasip1/wasm solaris/amd64 aix/ppc64 dragonfly/amd64

.PHONY: ci test fmt vet staticcheck race demo faults load model real reliability browser packages rivals cross windows wasm actionlint fuzz bench measure measure-reliability package man
ci: test fmt vet staticcheck race demo model faults load real reliability browser packages rivals cross wasm actionlint windows

test:
	go test ./...

fmt:
	@files=$$(gofmt -l .) || exit 1; test -z "$$files" || { echo "gofmt would change: $$files"; exit 1; }

vet:
	go vet ./...

# -exec sets GOOS for the tool alone; set for "go run" it would build a tool that cannot run here.
staticcheck:
	go run $(STATICCHECK) ./...
	go run -exec 'env GOOS=windows' $(STATICCHECK) ./...
	go run -exec 'env GOOS=darwin' $(STATICCHECK) ./...

race:
	go test -race ./...

# Both must hold: the demo exits with 0, which a pipe would hide, and its last line is the promised one.
demo:
	@out=$$(go run ./cmd/usher demo --requests 2000); status=$$?; echo "$$out"; test $$status = 0 || exit 1; \
	want='2000 requests, 2000 handed over, 0 proxied, 0 lost'; \
	test "$$(echo "$$out" | tail -n 1)" = "$$want" || { echo "the last line is not: $$want"; exit 1; }

# Who owns a connection: the model, exhaustively, then real processes under faults by chance.
model:
	doc/model/check

FAULTS_CONNS ?= 10000
faults:
	go test -count=1 -run '^(TestChaos|TestNothingLeaks)$$' -v -timeout 30m . -chaos.conns=$(FAULTS_CONNS) -leak.handovers=$(FAULTS_CONNS)

# The door beside slow clients, out of descriptors, while it is reloaded, and while its takers vanish.
LOAD_SLOW  ?= 5000
LOAD_CONNS ?= 10000
load:
	go test -count=1 -run 'UnderLoad|SlowClients|OutOfDescriptors' -v -timeout 10m ./internal/door -door.slow=$(LOAD_SLOW) -door.conns=$(LOAD_CONNS)

# Upgrades, crashes and replacements under load, in short: it fails if a request does. And a server that hands 1,000 connections to its next version, ten times.
reliability:
	cd bench && go run ./reliability -short
	go test -count=1 -run '^TestNobodyMissesAMessage' -v ./examples/chat -chat.clients=1000 -chat.upgrades=10

# The whole of it, for doc/reliability.md: ten minutes on a machine that does nothing else.
measure-reliability:
	cd bench && go run ./reliability -json reliability/results.json && go run ./reliability write reliability/results.json ../doc/reliability.md

# The dashboard in a real browser; a module of its own, so that the main one does not need what drives it.
browser:
	cd test/browser && go vet ./... && go test -count=1 ./...

# Usher beside its rivals, briefly: whether a ratio is far from what doc/performance.md says. Those that are not here are skipped.
RIVALS = direct,usher,usher-proxy,c-giver,haproxy-tcp,nginx-stream
rivals:
	cd bench && go vet ./... && GOOS=windows go vet ./... && GOOS=darwin go vet ./... && go test -count=1 ./...
	@mkdir -p dist
	cd bench && go run . -rounds 3 -only connect,keepalive,tls,bulk,idle,saturation -contenders $(RIVALS) -json ../dist/rivals.json
	cd bench && go run . check ../dist/rivals.json

# The whole comparison, for doc/performance.md and the README: a quarter of an hour on a machine that does nothing else.
measure:
	cd bench && go run . -json results.json && go run . chart results.json ../doc/performance.svg && go run . check results.json

cross:
	@set -e; for s in $(SYSTEMS); do \
		echo "build and vet for $$s"; \
		CGO_ENABLED=0 GOOS=$${s%/*} GOARCH=$${s#*/} go build ./...; \
		CGO_ENABLED=0 GOOS=$${s%/*} GOARCH=$${s#*/} go vet ./...; \
	done; \
	for s in $(OTHERS); do \
		echo "build the library for $$s"; \
		CGO_ENABLED=0 GOOS=$${s%/*} GOARCH=$${s#*/} go build . ./ipc ./usherhttp; \
	done

# The one system without sockets to pass that tests can be run for here.
wasm:
	@if command -v node >/dev/null; then \
		GOOS=js GOARCH=wasm go test -exec="$$(go env GOROOT)/lib/wasm/go_js_wasm_exec" . ./ipc; \
	else echo "skipped: node is not here, so the tests for js/wasm are not run"; fi

windows:
	@if [ -x $(WINE_TEST) ]; then $(WINE_TEST) -count=1 ./...; \
	else echo "skipped: $(WINE_TEST) is not here, so the tests for Windows are not run"; fi

actionlint:
	$(ACTIONLINT) .github/workflows/*.yml

fuzz:
	@set -e; packages=$$(go list ./...); for p in $$packages; do \
		tests=$$(go test -list '^Fuzz' $$p) || { echo "$$tests"; exit 1; }; \
		for f in $$(echo "$$tests" | grep ^Fuzz); do \
			echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p; \
		done; \
	done

bench:
	go test -run '^$$' -bench . -benchmem . ./ipc

package: # dist/*.deb and *.rpm
	packaging/build

packages: # and whether they are what they should be
	packaging/check

man: # doc/man, for: man -M doc/man usher
	go run ./cmd/usher man --dir doc/man

# Real clients and backends at the real door: curl, openssl, wrk, h2load, chromium, nginx, HAProxy, those of them that are here.
real:
	USHER_REAL=1 go test -count=1 -run '^TestScripts$$/^serve' -v ./cmd/usher
