package engine

// Folds gives the hashes of the two folds, what is decided on and what is durable.
// They are equal whenever nothing is being recorded. Only whoever calls Turn may
// call it.
func (e *Engine) Folds() (head, durable string) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.head.Hash(), e.durable.Hash()
}
