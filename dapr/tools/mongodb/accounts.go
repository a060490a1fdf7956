package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/FerretDB/wire/wirebson"
)

// put answers createUser and updateUser: the user is in the --users file before it can log in.
func (u *users) put(c *command) (*wirebson.Document, error) {
	if u == nil {
		return nil, notSupported(c.name + " without --users")
	}
	name, _ := c.doc.Get(c.name).(string)
	if name == "" {
		return nil, failure{2, c.name + " needs the name of a user"}
	}
	password, _ := c.doc.Get("pwd").(string)
	roles, err := rolesOf(c)
	if err != nil {
		return nil, err
	}

	u.mu.Lock()
	defer u.mu.Unlock()
	key := c.database + "." + name
	known := u.all[key] != nil
	switch {
	case c.name == "createUser" && known:
		return nil, failure{51003, fmt.Sprintf("User %q already exists", name+"@"+c.database)}
	case c.name == "createUser" && (password == "" || len(roles) == 0):
		return nil, notSupported("users without pwd or roles")
	case c.name == "updateUser" && !known:
		return nil, failure{11, fmt.Sprintf("Could not find user %q for db %q", name, c.database)}
	}
	entries, err := readEntries(u.path)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(entries, func(e entry) bool { return e.User == name && e.Database == c.database })
	if at < 0 {
		at = len(entries)
		entries = append(entries, entry{User: name, Database: c.database})
	}
	if password != "" {
		entries[at].Password = password
	}
	if len(roles) > 0 {
		entries[at].Roles = roles
	}
	a, err := newAccount(entries[at])
	if err != nil {
		return nil, failure{2, "The password cannot be used: " + err.Error()}
	}
	if err := replaceFile(u.path, entries); err != nil {
		return nil, err
	}
	u.all[key] = a
	return wirebson.MustDocument("ok", float64(1)), nil
}

// rolesOf reads roles: [name | {role, db}]. Here a user has roles in its own database only, and root in all of them.
func rolesOf(c *command) ([]string, error) {
	var roles []string
	for _, item := range c.array("roles") {
		name, isName := item.(string)
		database := c.database
		if doc, ok := item.(*wirebson.Document); ok {
			name, isName = doc.Get("role").(string)
			database, _ = doc.Get("db").(string)
		}
		switch {
		case !isName || !slices.Contains(knownRoles, name):
			return nil, failure{31, fmt.Sprintf("Could not find role: %s@%s", name, database)}
		case database != c.database, name == "root" && database != "admin":
			return nil, notSupported("roles in another database than the user's own (root: admin)")
		}
		roles = append(roles, name)
	}
	return roles, nil
}

// info answers usersInfo: a name, {user, db}, a list of them, or 1 for all of the database.
func (u *users) info(c *command) (*wirebson.Document, error) {
	wanted := func(*account) bool { return false }
	switch v := c.doc.Get("usersInfo").(type) {
	case *wirebson.Array:
		items := c.array("usersInfo")
		wanted = func(a *account) bool {
			return slices.ContainsFunc(items, func(item any) bool { return named(item, c.database, a) })
		}
	case string, *wirebson.Document:
		wanted = func(a *account) bool { return named(v, c.database, a) }
	default:
		wanted = func(a *account) bool { return a.database == c.database }
	}
	list := wirebson.MakeArray(1)
	for _, a := range u.sorted() {
		if wanted(a) {
			_ = list.Add(wirebson.MustDocument("_id", a.database+"."+a.name, "user", a.name, "db", a.database,
				"roles", a.roleDocuments(), "mechanisms", wirebson.MustArray("SCRAM-SHA-1", "SCRAM-SHA-256")))
		}
	}
	return wirebson.MustDocument("users", list, "ok", float64(1)), nil
}

func named(item any, database string, a *account) bool {
	name, _ := item.(string)
	if doc, ok := item.(*wirebson.Document); ok {
		name, _ = doc.Get("user").(string)
		database, _ = doc.Get("db").(string)
	}
	return a.name == name && a.database == database
}

func (u *users) sorted() []*account {
	if u == nil {
		return nil
	}
	u.mu.RLock()
	defer u.mu.RUnlock()
	all := make([]*account, 0, len(u.all))
	for _, key := range slices.Sorted(maps.Keys(u.all)) {
		all = append(all, u.all[key])
	}
	return all
}

// roleDocuments: who was given no roles has those of an owner.
func (a *account) roleDocuments() *wirebson.Array {
	names := a.roles
	if len(names) == 0 {
		names = []string{"dbOwner"}
	}
	roles := wirebson.MakeArray(len(names))
	for _, role := range names {
		_ = roles.Add(wirebson.MustDocument("role", role, "db", a.database))
	}
	return roles
}

// replaceFile writes a value as JSON, so that after a crash there is either the old file or the new one.
func replaceFile(path string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	next := path + ".next"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
