package console

// syncPages registers pages of syncs.
func (s *Console) syncPages() {}
