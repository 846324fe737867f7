package config

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// watched is a file that a test changes while it is watched.
type watched struct {
	*testing.T
	dir, file string
	changed   chan string // what was in the file when Watch told of it; "" if it could not be read
	calls     int         // that were taken from it
}

// watch starts to watch a file named usher.yaml, which prepare has made if it is to be there.
func watch(t *testing.T, prepare func(w *watched)) *watched {
	t.Helper()
	dir := t.TempDir()
	w := &watched{T: t, dir: dir, file: filepath.Join(dir, "usher.yaml"), changed: make(chan string, 100)}
	prepare(w)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	err := Watch(ctx, w.file, func() {
		data, _ := os.ReadFile(w.file)
		w.changed <- string(data)
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *watched) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *watched) write(file, text string) {
	w.Helper()
	w.must(os.WriteFile(file, []byte(text), 0o600))
}

// tells waits until Watch has told of a file with this text; those before it may be half written.
func (w *watched) tells(text string) {
	w.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case got := <-w.changed:
			w.calls++
			if got == text {
				return
			}
		case <-limit:
			w.Fatalf("it did not tell of %q", text)
		}
	}
}

func TestWatchTellsOfAFileWrittenInPlace(t *testing.T) {
	w := watch(t, func(w *watched) { w.write(w.file, "one") })
	w.write(w.file, "two")
	w.tells("two")
	w.write(w.file, "six") // as long as before
	w.tells("six")
}

func TestWatchTellsOfAFileRenamedOverIt(t *testing.T) {
	w := watch(t, func(w *watched) { w.write(w.file, "one") })
	for _, text := range []string{"two", "three"} {
		w.write(w.file+".new", text)
		w.must(os.Rename(w.file+".new", w.file))
		w.tells(text)
	}
}

func TestWatchTellsOfAFileThatWasDeletedAndIsBack(t *testing.T) {
	w := watch(t, func(w *watched) { w.write(w.file, "one") })
	for _, text := range []string{"two", "three"} {
		w.must(os.Remove(w.file))
		w.write(w.file, text)
		w.tells(text)
	}
}

func TestWatchTellsOfAFileThatWasNotThereAtFirst(t *testing.T) {
	w := watch(t, func(*watched) {})
	w.write(w.file, "one")
	w.tells("one")
}

func TestWatchTellsOfAFileThatEditorsKeepABackupOf(t *testing.T) {
	w := watch(t, func(w *watched) { w.write(w.file, "one") })
	w.must(os.Rename(w.file, w.file+"~"))
	w.write(w.file, "two")
	w.tells("two")
}

// swap points a symbolic link to something else in one step.
func (w *watched) swap(link, target string) {
	w.Helper()
	w.must(os.Symlink(target, link+".new"))
	w.must(os.Rename(link+".new", link))
}

// symlinks skips a test on a system, or for a user of Windows, that may not make them.
func symlinks(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("only an administrator can make links there, and nothing puts configurations behind any")
	}
	if err := os.Symlink("nowhere", filepath.Join(t.TempDir(), "link")); err != nil {
		t.Skip(err)
	}
}

// TestWatchTellsOfALinkThatKubernetesSwaps has the folders of a volume that is made of a ConfigMap.
func TestWatchTellsOfALinkThatKubernetesSwaps(t *testing.T) {
	symlinks(t)
	w := watch(t, func(w *watched) {
		w.must(os.Mkdir(filepath.Join(w.dir, "..1"), 0o700))
		w.write(filepath.Join(w.dir, "..1", "usher.yaml"), "one")
		w.must(os.Symlink("..1", filepath.Join(w.dir, "..data")))
		w.must(os.Symlink(filepath.Join("..data", "usher.yaml"), w.file))
	})
	for _, version := range []struct{ old, new, text string }{{"..1", "..2", "two"}, {"..2", "..3", "three"}} {
		w.must(os.Mkdir(filepath.Join(w.dir, version.new), 0o700))
		w.write(filepath.Join(w.dir, version.new, "usher.yaml"), version.text)
		w.swap(filepath.Join(w.dir, "..data"), version.new)
		w.must(os.RemoveAll(filepath.Join(w.dir, version.old)))
		w.tells(version.text)
	}
}

func TestWatchFollowsALinkToAnotherFolder(t *testing.T) {
	symlinks(t)
	elsewhere, later := t.TempDir(), t.TempDir()
	w := watch(t, func(w *watched) {
		w.write(filepath.Join(elsewhere, "a.yaml"), "one")
		w.must(os.Symlink(filepath.Join(elsewhere, "a.yaml"), w.file))
	})
	w.write(filepath.Join(elsewhere, "a.yaml"), "two")
	w.tells("two")
	w.write(filepath.Join(later, "b.yaml"), "three")
	w.swap(w.file, filepath.Join(later, "b.yaml"))
	w.tells("three")
	w.write(filepath.Join(later, "b.yaml"), "four")
	w.tells("four")
}

func TestWatchIsSilentAboutOtherFiles(t *testing.T) {
	w := watch(t, func(w *watched) { w.write(w.file, "one") })
	for range 10 {
		w.write(filepath.Join(w.dir, "other"), "x")
	}
	w.must(os.Chmod(w.file, 0o644))
	w.must(os.Remove(filepath.Join(w.dir, "other")))
	time.Sleep(3 * settle) // else a call for these would be one with that for the next
	w.write(w.file+".new", "two")
	w.must(os.Rename(w.file+".new", w.file))
	if got := <-w.changed; got != "two" {
		t.Errorf("it told of %q", got)
	}
}

func TestManyChangesAtOnceAreFewCalls(t *testing.T) {
	w := watch(t, func(w *watched) { w.write(w.file, "") })
	began := time.Now()
	f, err := os.OpenFile(w.file, os.O_APPEND|os.O_WRONLY, 0)
	w.must(err)
	defer f.Close()
	text := ""
	for range 1000 {
		_, err := f.WriteString("x")
		w.must(err)
		text += "x"
	}
	w.tells(text)
	if most := int(time.Since(began)/settle) + 1; w.calls > most {
		t.Errorf("%d calls, where there is time for %d", w.calls, most)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	w, err := newWatcher(filepath.Join(dir, "usher.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w.run(ctx, func() { t.Error("a call after the end") })
	if list := w.WatchList(); len(list) > 0 {
		t.Errorf("it watches %v still", list)
	}
}

func TestWatchNeedsAFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nowhere", "usher.yaml")
	if err := Watch(t.Context(), file, func() {}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
