package history

// Conserved checks the counts at the end of a drained run. Every queue must report that it is
// empty. Every certainly rejected message must have come out of the dead-letter queue of its queue.
func Conserved(h *History) (bad []Finding) {
	if !h.Drained {
		return nil
	}
	for i := range h.Ops {
		if op := &h.Ops[i]; op.Kind == Count && op.N != 0 {
			bad = append(bad, finding("counts", op.Queue, "the queue says that it holds %d messages after everything was taken out", op.N))
		}
	}
	dead := map[string]string{} // value → its dead-letter queue
	for i := range h.Ops {
		if op := &h.Ops[i]; op.Kind == Deliver {
			if f := dead[op.Value+"\x00"+op.Queue]; f == "" {
				dead[op.Value+"\x00"+op.Queue] = op.ID
			}
		}
	}
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.Kind != Reject || op.Outcome != OK {
			continue
		}
		if to := h.Queues[op.Queue].DeadLetter; to != "" && dead[op.Value+"\x00"+to] == "" {
			bad = append(bad, finding("dead letter lost", op.Value, "rejected from %s at %s, and never came out of %s", op.Queue, at(op.Return), to))
		}
	}
	return bad
}

// SinkRows checks the values in the rows of a sink's table. Each confirmed value must be in the
// table exactly once. A value with a lost outcome may be there at most once. No other value may be
// there. parked are values that the sink parked by its rules; they must not be in the table.
func SinkRows(h *History, rows []string, parked map[string]bool) (checked int, bad []Finding) {
	count := make(map[string]int, len(rows))
	for _, v := range rows {
		count[v]++
	}
	all := fates(h)
	for _, f := range sorted(all) {
		n := count[f.value]
		checked++
		switch {
		case n > 1:
			bad = append(bad, finding("row doubled", f.value, "%d rows", n))
		case parked[f.value] && n > 0:
			bad = append(bad, finding("row doubled", f.value, "in the table and in the dead-letter queue"))
		case n == 0 && f.ok > 0 && !parked[f.value]:
			bad = append(bad, finding("row lost", f.value, "confirmed at %s, and not in the table", at(f.confirmed)))
		case n > 0 && f.ok+f.info == 0:
			bad = append(bad, finding("row unexpected", f.value, "in the table, though every publish of it was refused"))
		}
	}
	for _, v := range rows {
		if all[v] == nil {
			bad = append(bad, finding("row unexpected", v, "in the table, though nobody published it"))
		}
	}
	return checked, bad
}
