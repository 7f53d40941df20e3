package console

// createPages registers the forms that make a consumer, a sync or a database.
func (s *Console) createPages() {}
