//go:build linux

package main

import (
	"github.com/surgetank/surgetank/test/faults/powerfs"
)

// powerScenarios are the scenarios with power cuts and lying disks. They are part of scenarios.
var powerScenarios = []scenario{
	{id: "C19", quick: true, fault: "power cut: all that was not synced is gone", needs: canFuse, run: powerCuts(asReleased, 6, powerfs.Nothing)},
	{id: "C20", quick: true, fault: "power cut: any part of what was not synced survives", needs: canFuse, run: powerCuts(asReleased, 8, powerfs.Some)},
	{id: "C21", fault: "power cut: the last write is torn", needs: canFuse, run: powerCuts(asReleased, 6, powerfs.Torn)},
	{id: "C22", fault: "power cut: noise and zeros where something was to be written", needs: canFuse, run: powerCuts(asReleased, 6, powerfs.Noise)},
	{id: "C23", fault: "power cut: names lost and bytes kept, and the reverse", needs: canFuse, run: powerCuts(asReleased, 6, powerfs.Bytes, powerfs.Names)},
	{id: "C20e", fault: "power cut: any part of the unflushed blocks under ext4 survives", needs: canLoopOnFuse, run: powerCuts(underExt4, 6, powerfs.Nothing, powerfs.Some, powerfs.Torn)},
	{id: "C20s", fault: "power cut while the log rolls, trims and snapshots, in every way of survival", needs: canBuildOnFuse,
		run: powerCuts(smallFiles, 12, powerfs.Nothing, powerfs.Some, powerfs.Torn, powerfs.Noise, powerfs.Bytes, powerfs.Names)},
	{id: "C25", fault: "a disk that lies about syncs, and then a power cut", needs: canFuse, run: lyingDisk},
	{id: "D8x", fault: "a block under ext4 fails once: fdatasync fails once, the page cache keeps what the disk lost", needs: canLoopOnFuse, run: failingBlocks},
	{id: "D10", fault: "writes that take a part", needs: canFuse, run: shortWrites},
	{id: "D16s", fault: "syncs, then writes, hang", needs: canFuse, run: stalls},
	{id: "T30", slow: 8, fault: "the clock of a virtual machine is set by hours and decades", needs: canBoot, run: clockJumps},
	{id: "N38g", slow: 8, fault: "packets of a virtual machine late, lost, doubled, out of order", needs: canShape, run: guestNetwork},
	{id: "C24", slow: 8, fault: "power cut of a virtual machine with ext4", needs: canBoot, run: machineCuts("ext4", 3, 100)},
	{id: "C24x", slow: 8, fault: "power cut of a virtual machine with xfs", needs: canBoot, run: machineCuts("xfs", 2, 100)},
}
