package config

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long Watch waits after an event for those that belong to it.
const settle = 100 * time.Millisecond

// Watch calls changed when a file has changed, until ctx ends. It returns at once, with an error if it cannot
// watch; what happens to the file after that is not missed, so load it after Watch rather than before.
//
// It watches the folder of the file and, through symbolic links, that of the file that they lead to, for
// editors replace the file by renaming another, and Kubernetes replaces a link on the way. The folder has to
// be there, and to stay; the file may vanish and come back, and changed is called when it has. It is called
// by one goroutine, once for all changes within some 100 ms, and may find the file half written: then it
// will be called again.
func Watch(ctx context.Context, path string, changed func()) error {
	w, err := newWatcher(path)
	if err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	go w.run(ctx, changed)
	return nil
}

type watcher struct {
	*fsnotify.Watcher
	path string // absolute
	real string // without symbolic links; empty while there is no file
	seen fs.FileInfo
}

func newWatcher(path string) (*watcher, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	fw, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	w := &watcher{Watcher: fw, path: path}
	if err := w.Add(filepath.Dir(path)); err != nil {
		fw.Close()
		return nil, err
	}
	w.look()
	return w, nil
}

func (w *watcher) run(ctx context.Context, changed func()) {
	defer w.Close()
	var settled <-chan time.Time // nil while nothing has happened
	written := false             // the file itself, whatever its size and time say
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-w.Events:
			written = written || e.Has(fsnotify.Write|fsnotify.Create) && (e.Name == w.path || e.Name == w.real)
		case <-w.Errors: // events may have been lost
		case <-settled:
			settled = nil
			if w.look() || written && w.seen != nil {
				changed()
			}
			written = false
			continue
		}
		if settled == nil { // not put off by later events, for a busy folder may never be still
			settled = time.After(settle)
		}
	}
}

// look tells whether there is a file and it is not the one that was there last, and follows it if it is
// elsewhere now.
func (w *watcher) look() bool {
	info, err := os.Stat(w.path)
	if err != nil {
		return false // and w.seen stays: the very same file may come back
	}
	w.follow()
	same := w.seen != nil && os.SameFile(w.seen, info) && w.seen.Size() == info.Size() && w.seen.ModTime().Equal(info.ModTime())
	w.seen = info
	return !same
}

// follow watches the folder of the file that symbolic links lead to. Where that fails, as for a folder that
// may not be read, the changes of the links themselves are still seen.
func (w *watcher) follow() {
	real, err := filepath.EvalSymlinks(w.path)
	if err != nil || real == w.real {
		return
	}
	w.real = real
	folders := []string{filepath.Dir(w.path), filepath.Dir(real)}
	for _, watched := range w.WatchList() {
		if !slices.Contains(folders, watched) {
			w.Remove(watched) // its error is that the folder has gone
		}
	}
	w.Add(filepath.Dir(real))
}
