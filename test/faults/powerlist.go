//go:build linux

package main

import "github.com/surgetank/surgetank/test/faults/powerfs"

// powerScenarios are the rows about power cuts and disks that lie; they are part of scenarios.
var powerScenarios = []scenario{
	{id: "C19", quick: true, fault: "power cut: all that was not synced is gone", needs: canFuse, run: powerCuts(6, powerfs.Nothing)},
	{id: "C20", quick: true, fault: "power cut: any part of what was not synced survives", needs: canFuse, run: powerCuts(8, powerfs.Some)},
	{id: "C21", fault: "power cut: the last write is torn", needs: canFuse, run: powerCuts(6, powerfs.Torn)},
	{id: "C22", fault: "power cut: noise and zeros where something was to be written", needs: canFuse, run: powerCuts(6, powerfs.Noise)},
	{id: "C23", fault: "power cut: names lost and bytes kept, and the reverse", needs: canFuse, run: powerCuts(6, powerfs.Bytes, powerfs.Names)},
	{id: "D10", fault: "writes that take a part", needs: canFuse, run: shortWrites},
	{id: "D16s", fault: "syncs, then writes, hang", needs: canFuse, run: stalls},
}
