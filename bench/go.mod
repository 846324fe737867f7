module github.com/go-usher/usher/bench

go 1.26.0

require (
	github.com/go-usher/usher v0.0.0
	github.com/inetaf/tcpproxy v0.0.0-20260515195445-c159a6051109
	golang.org/x/sys v0.49.0
)

require github.com/Microsoft/go-winio v0.6.4 // indirect

replace github.com/go-usher/usher => ../
