package console

// charts registers what the pages' charts are drawn from.
func (s *Console) charts() {}
