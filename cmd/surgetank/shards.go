package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/surgetank/surgetank/internal/config"
)

// dataFlag names the data directories of the offline commands. They lock the directories, so the
// server must be stopped.
type dataFlag struct {
	Data     string   `default:"./surgetank-data" placeholder:"DIR" help:"Data directory of a stopped server. Default ${default}."`
	ShardDir []string `sep:"none" placeholder:"DIR" help:"Directory of the second shard, then of the third, and so on. Default: as in --config, or the directories shard-2, shard-3 and so on in the data directory, if they exist."`
	Config   string   `placeholder:"FILE" help:"Configuration file of the server, for the directories of its shards."`
}

// shardData is the data of one shard.
type shardData struct {
	shard int // 0: there is one shard
	dir   string
}

// log returns the directory of the log and its snapshots.
func (d shardData) log() string { return filepath.Join(d.dir, "log") }

// prefix begins the lines about a shard, if there are several.
func (d shardData) prefix() string {
	if d.shard == 0 {
		return ""
	}
	return fmt.Sprintf("shard %d: ", d.shard)
}

// named adds the shard to an error.
func (d shardData) named(err error) error {
	if err == nil || d.shard == 0 {
		return err
	}
	return fmt.Errorf("shard %d: %w", d.shard, err)
}

// shards returns the data of all shards.
func (d dataFlag) shards() ([]shardData, error) {
	list := []shardData{{1, d.Data}}
	inside := func(n int) string { return filepath.Join(d.Data, fmt.Sprintf("shard-%d", n)) }
	switch {
	case len(d.ShardDir) > 0 && d.Config != "":
		return nil, &failure{exitUsage, errors.New("--shard-dir and --config exclude each other: both name the directories of the shards")}
	case len(d.ShardDir) > 0:
		for i, dir := range d.ShardDir {
			list = append(list, shardData{i + 2, dir})
		}
	case d.Config != "":
		f, err := config.Load(d.Config)
		if err != nil {
			return nil, err
		}
		for n := 2; n <= f.Server.Shards; n++ {
			dir := inside(n)
			if n <= len(f.Server.ShardDirs) && f.Server.ShardDirs[n-1] != "" {
				dir = f.Server.ShardDirs[n-1]
			}
			list = append(list, shardData{n, dir})
		}
	default:
		for n := 2; ; n++ {
			if _, err := os.Stat(filepath.Join(inside(n), "log")); err != nil {
				break
			}
			list = append(list, shardData{n, inside(n)})
		}
	}
	if len(list) == 1 {
		list[0].shard = 0
	}
	return list, nil
}
