package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// result is one run of one workload against one target: a line of the results file.
type result struct {
	Invocation string `json:"invocation"` // time at which the program was started; the same in all its runs
	Time       string `json:"time"`
	Workload   string `json:"workload"`
	Target     string `json:"target"`
	Product    string `json:"product"` // name from the server's introduction
	Client     string `json:"client"`
	Run        int    `json:"run"`

	Seconds     float64            `json:"seconds"`
	Messages    int64              `json:"messages"`
	Rate        float64            `json:"messages_per_s"`
	P50         float64            `json:"p50_ms"`
	P99         float64            `json:"p99_ms"`
	ServerCPU   float64            `json:"server_cpu_s_per_million"`
	ClientCPU   float64            `json:"client_cpu_s_per_million"`
	ServerCores float64            `json:"server_cores"`
	ClientCores float64            `json:"client_cores"`
	OtherCores  float64            `json:"other_cores"` // cores used by all other programs, including kernel threads
	Cores       int                `json:"cores"`       // number of the machine's cores
	PeakMB      float64            `json:"peak_pss_mb"`
	DiskMBps    float64            `json:"disk_mb_per_s"`
	Flushes     float64            `json:"disk_flushes_per_s"`
	More        map[string]float64 `json:"more,omitempty"` // figures that only this workload has
}

// Names in result.More.
const (
	moreDeclare    = "declare_s"
	morePublished  = "published_per_s"
	moreBacklog    = "backlog_at_end"
	moreCount      = "count"
	moreAfterMB    = "pss_after_mb"
	moreDiskMB     = "disk_mb"
	moreStop       = "clean_stop_s"
	moreClean      = "clean_start_to_first_s"
	moreKilled     = "kill9_start_to_first_s"
	moreDrain      = "drain_per_s"
	moreDrainCPU   = "drain_server_cpu_s_per_million"
	moreLost       = "lost"
	moreDuplicates = "duplicates"
)

// ceiling returns the rate at which the client alone would use every core. With this client and
// this machine, no server can be faster.
func (r result) ceiling() float64 {
	if r.ClientCPU == 0 {
		return 0
	}
	return float64(r.Cores) * 1e6 / r.ClientCPU
}

func (r *result) more(name string, value float64) {
	if r.More == nil {
		r.More = map[string]float64{}
	}
	r.More[name] = value
}

// appendResult adds a line to the results file.
func appendResult(path string, r result) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// readResults returns the lines of a results file, or none if there is no file.
func readResults(path string) ([]result, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []result
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		var r result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s:%d is not a result; move the file away or mend the line: %w", path, n, err)
		}
		all = append(all, r)
	}
	return all, lines.Err()
}

// summary is the runs of one workload against one target in one invocation.
type summary struct{ runs []result }

// median returns the middle of a figure over the runs. For an even number it is the mean of the two
// middle values.
func (s summary) median(figure func(result) float64) float64 {
	values := s.values(figure)
	if len(values) == 0 {
		return 0
	}
	half := len(values) / 2
	if len(values)%2 == 1 {
		return values[half]
	}
	return (values[half-1] + values[half]) / 2
}

// values returns a figure of every run, sorted.
func (s summary) values(figure func(result) float64) []float64 {
	values := make([]float64, 0, len(s.runs))
	for _, r := range s.runs {
		values = append(values, figure(r))
	}
	slices.Sort(values)
	return values
}

// summaries maps workload and target to the runs of the newest invocation that measured them.
type summaries map[[2]string]summary

func summarize(results []result) summaries {
	all := summaries{}
	for _, r := range results {
		key := [2]string{r.Workload, r.Target}
		s := all[key]
		switch {
		case len(s.runs) == 0 || s.runs[0].Invocation < r.Invocation:
			s.runs = []result{r}
		case s.runs[0].Invocation == r.Invocation:
			s.runs = append(s.runs, r)
		}
		all[key] = s
	}
	return all
}
