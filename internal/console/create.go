package console

import (
	"fmt"
	"net/http"

	"lockstep"
	"lockstep/client"
)

// createPages registers the forms that make a consumer, a sync or a database.
func (s *Console) createPages() {
	s.page("create/consumer", "create-consumer", newConsumer)
	s.page("create/sync", "create-sync", newSync)
	s.page("create/database", "create-database", newDatabase)
	s.entry("create/consumer", makeConsumer)
	s.entry("create/sync", makeSync)
	s.entry("create/database", makeDatabase)
}

// entry registers what takes a form and answers with a page: the same one with what is
// wrong, or another when it is made.
func (s *Console) entry(address string, take func(*visit)) {
	s.mux.HandleFunc("POST "+Prefix+address, s.signedIn(func(c *visit) {
		c.r.Body = http.MaxBytesReader(c.w, c.r.Body, 4<<20)
		if err := c.r.ParseForm(); err != nil {
			c.fail(fmt.Errorf("the form could not be read: %w", lockstep.ErrInvalid))
			return
		}
		take(c)
	}))
}

// databaseNames returns the names of the node's databases.
func databaseNames(c *visit) ([]string, error) {
	list, err := c.api.Databases(c.ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(list))
	for i, d := range list {
		names[i] = d.Name
	}
	return names, nil
}

// namesShown is how many names of tables a form shows for copying.
const namesShown = 200

// tableNames returns names of tables of a database, and how many more there are. That
// they are not known is no error: they only help.
func tableNames(c *visit, database string) (names []string, more int) {
	tables, err := c.api.Tables(c.ctx, database, client.Page{Limit: namesShown})
	if err != nil {
		return nil, 0
	}
	for _, t := range tables.Data {
		names = append(names, t.Table)
	}
	return names, tables.Total - len(names)
}
