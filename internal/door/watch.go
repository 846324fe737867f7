package door

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watcher knows which sockets there are in the folders of endpoints, and says when one appears. On Windows,
// where pipes are in no folder that can be watched, it takes every endpoint to be there.
type watcher struct {
	log      *slog.Logger
	appeared func(path string)
	fs       *fsnotify.Watcher // nil if the system gives none
	stop     chan struct{}
	work     sync.WaitGroup

	scanning sync.Mutex // held from looking at the disk to noting what was seen: else an older view could win

	mu      sync.RWMutex
	folders map[string]map[string]struct{} // the names in each; nil before it was read
	closed  bool
}

// rescanEvery is for what no event told: folders that come and go, and events that the kernel dropped.
const rescanEvery = 2 * time.Second

func newWatcher(log *slog.Logger, appeared func(string)) *watcher {
	w := &watcher{log: log, appeared: appeared, stop: make(chan struct{}), folders: make(map[string]map[string]struct{})}
	if runtime.GOOS == "windows" {
		return w
	}
	var err error
	if w.fs, err = fsnotify.NewWatcher(); err != nil {
		log.Warn("cannot watch the folders of endpoints, and looks at them now and then instead", "every", rescanEvery, "error", err)
	}
	w.work.Go(w.run)
	return w
}

// folderOf begins to watch the folder that path is in.
func (w *watcher) folderOf(path string) { w.folder(filepath.Dir(path)) }

func (w *watcher) folder(dir string) {
	if runtime.GOOS == "windows" {
		return
	}
	w.mu.Lock()
	_, known := w.folders[dir]
	if !known {
		w.folders[dir] = nil
	}
	w.mu.Unlock()
	if known {
		return
	}
	// As package ipc makes it. Where that fails the first taker may do better.
	_ = os.MkdirAll(dir, 0o700)
	w.rescan(dir)
}

// has says whether there is a socket at path.
func (w *watcher) has(path string) bool {
	if runtime.GOOS == "windows" {
		return true
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	_, ok := w.folders[filepath.Dir(path)][filepath.Base(path)]
	return ok
}

// exists is has where the system can tell that without watching, too. On Windows to ask is to connect, which
// a taker takes for somebody who changed his mind.
func (w *watcher) exists(path string) bool {
	if runtime.GOOS != "windows" {
		return w.has(path)
	}
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func (w *watcher) run() {
	var events chan fsnotify.Event
	var errs chan error
	if w.fs != nil {
		events, errs = w.fs.Events, w.fs.Errors
	}
	tick := time.NewTicker(rescanEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.stop:
			return
		case ev := <-events:
			w.look(ev.Name)
		case err := <-errs:
			w.log.Debug("watching the folders of endpoints", "error", err)
			w.rescanAll()
		case <-tick.C:
			w.rescanAll()
		}
	}
}

// look finds out what is at a path now.
func (w *watcher) look(path string) {
	dir, name := filepath.Split(path)
	if strings.HasPrefix(name, ".") {
		return // a socket that is not complete yet: package ipc moves it to its name
	}
	w.scanning.Lock()
	info, err := os.Lstat(path)
	there := err == nil && info.Mode().Type() == fs.ModeSocket
	w.mu.Lock()
	names := w.folders[filepath.Clean(dir)]
	if names != nil && there {
		names[name] = struct{}{}
	} else {
		delete(names, name)
	}
	w.mu.Unlock()
	w.scanning.Unlock()
	if names != nil && there {
		w.appeared(path)
	}
}

func (w *watcher) rescanAll() {
	w.mu.RLock()
	dirs := make([]string, 0, len(w.folders))
	for dir := range w.folders {
		dirs = append(dirs, dir)
	}
	w.mu.RUnlock()
	for _, dir := range dirs {
		w.rescan(dir)
	}
}

// rescan reads a folder, and watches it from then on if it was not watched.
func (w *watcher) rescan(dir string) {
	w.scanning.Lock()
	if w.fs != nil {
		_ = w.fs.Add(dir) // every time: it may be another folder of the same name
	}
	names := make(map[string]struct{})
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.Type() == fs.ModeSocket && !strings.HasPrefix(e.Name(), ".") {
			names[e.Name()] = struct{}{}
		}
	}
	var fresh []string // found now: once names is in its place, look changes it
	w.mu.Lock()
	before := w.folders[dir]
	for name := range names {
		if _, ok := before[name]; !ok {
			fresh = append(fresh, name)
		}
	}
	w.folders[dir] = names
	w.mu.Unlock()
	w.scanning.Unlock()
	for _, name := range fresh {
		w.appeared(filepath.Join(dir, name))
	}
}

func (w *watcher) close() {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return
	}
	w.closed = true
	w.mu.Unlock()
	close(w.stop)
	w.work.Wait()
	if w.fs != nil {
		w.fs.Close()
	}
}
