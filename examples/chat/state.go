package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-usher/usher"
)

// stateVersion is of what room and client export. A program that changes them counts it up, and may go on reading what the
// one before has written: its request says so.
var stateVersion = 1

func checkVersion(version int) error {
	if version != stateVersion {
		return fmt.Errorf("a state has version %d, this program reads %d", version, stateVersion)
	}
	return nil
}

// request is what a successor says when it hands the line over: which versions of states it reads.
func request() []byte { return fmt.Appendf(nil, "[%d]", stateVersion) }

func checkRequest(b []byte) error {
	var reads []int
	if err := json.Unmarshal(b, &reads); err != nil {
		return fmt.Errorf("the request of a successor: %w", err)
	}
	if !slices.Contains(reads, stateVersion) {
		return fmt.Errorf("states here have version %d, the successor reads %v", stateVersion, reads)
	}
	return nil
}

// check readies a room that has come, whose clients have not.
func (r *room) check() error {
	if r == nil {
		return errors.New("a room has come without a state")
	}
	if err := checkVersion(r.Version); err != nil {
		return err
	}
	if int64(len(r.History)) > r.Last {
		return fmt.Errorf("a room has %d messages of %d", len(r.History), r.Last)
	}
	r.clients, r.stopped = make(map[*client]struct{}), true
	return nil
}

// state returns what the door has told of the client, and its own state. The room is stopped.
func (c *client) state() usher.Info {
	info := c.info
	info.State, _ = json.Marshal(c) // which cannot fail for what client exports
	return info
}

// parseClient reads the state of a client whose next message is one of those up to last, or the one after that.
func parseClient(b []byte, last int64) (*client, error) {
	c := new(client)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("the state of a client: %w", err)
	}
	if err := checkVersion(c.Version); err != nil {
		return nil, err
	}
	if c.Next < 1 || c.Next > last+1 {
		return nil, fmt.Errorf("the next message for %s is %d, the last was %d", c.Name, c.Next, last)
	}
	return c, nil
}
