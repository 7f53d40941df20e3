package console

// databasePages registers pages of databases: the list, and one with its slot and its tables.
func (s *Console) databasePages() {}
