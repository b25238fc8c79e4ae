package shards

import "sync/atomic"

var testShards atomic.Int64

// TestShards returns the number of shards of brokers whose options set none; 0: one. Only package
// shardstest sets it.
func TestShards() int { return int(testShards.Load()) }

// SetTestShards is for package shardstest.
func SetTestShards(n int) { testShards.Store(int64(n)) }
