package deploylog

// Full reports whether the lines that wait are as many as may.
func (w *Writer) Full() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bufBytes > maxBuffered
}
