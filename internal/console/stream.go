package console

// streamPages registers the live tail, and the page of a change.
func (s *Console) streamPages() {}
