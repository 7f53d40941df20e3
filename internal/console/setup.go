package console

// setupPages registers the doctor's findings, and the audit.
func (s *Console) setupPages() {}
