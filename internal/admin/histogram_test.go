package admin_test

import (
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/admin"
)

func TestDurationsFindTheirBucket(t *testing.T) {
	tests := []struct {
		name   string
		d      time.Duration
		bucket int
	}{
		{"nothing at all", 0, 0},
		{"a bound itself", 10 * time.Microsecond, 0},
		{"a little more than a bound", 10*time.Microsecond + 1, 1},
		{"the last bound", time.Hour, len(admin.Bounds) - 1},
		{"more than the last bound", time.Hour + 1, len(admin.Bounds)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var d admin.Durations
			d.Observe(tt.d)
			h := d.Histogram()
			want := make([]uint64, len(admin.Bounds)+1)
			want[tt.bucket] = 1
			if !reflect.DeepEqual(h.Counts, want) {
				t.Errorf("got %v; want %v", h.Counts, want)
			}
			if h.Sum != tt.d.Seconds() {
				t.Errorf("the sum is %v s", h.Sum)
			}
		})
	}
}

func TestQuantile(t *testing.T) {
	counts := func(at map[int]uint64) admin.Histogram {
		h := admin.Histogram{Counts: make([]uint64, len(admin.Bounds)+1)}
		for i, n := range at {
			h.Counts[i] = n
		}
		return h
	}
	tests := []struct {
		name string
		h    admin.Histogram
		q    float64
		want float64
	}{
		{"of nothing", admin.Histogram{}, 0.5, math.NaN()},
		{"of empty buckets", counts(nil), 0.5, math.NaN()},
		{"the median of one bucket is its middle", counts(map[int]uint64{1: 10}), 0.5, 0.0000175},
		{"the whole of one bucket is its end", counts(map[int]uint64{1: 10}), 1, 0.000025},
		{"the first bucket begins at zero", counts(map[int]uint64{0: 2}), 0.5, 0.000005},
		{"empty buckets between are passed over", counts(map[int]uint64{0: 50, 6: 50}), 0.75, 0.00075},
		{"what is over the last bound is that bound", counts(map[int]uint64{0: 1, 22: 9}), 0.99, 3600},
		{"of fewer buckets than bounds", admin.Histogram{Counts: []uint64{0, 4}}, 0.5, 0.0000175},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.h.Quantile(tt.q)
			if math.Abs(got-tt.want) > 1e-12 || math.IsNaN(got) != math.IsNaN(tt.want) {
				t.Errorf("got %v; want %v", got, tt.want)
			}
		})
	}
}
