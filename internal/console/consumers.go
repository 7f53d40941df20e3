package console

// consumerPages registers pages of consumers.
func (s *Console) consumerPages() {}
