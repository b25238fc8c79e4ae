package lease

// Freeze stops the node's goroutine, as a debugger does. The node's connection stays. Until thaw is
// called, most methods of the node wait.
func (n *Node) Freeze() (thaw func()) {
	n.mu.Lock()
	return n.mu.Unlock
}
