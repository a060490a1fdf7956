package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/FerretDB/wire/wirebson"
)

// sweepEvery is how often expired documents are deleted; MongoDB does so every 60 s.
const sweepEvery = 30 * time.Second

// sweepChunk bounds how long a sweep holds up the writers.
const sweepChunk = 500

// ttlField: one top-level field, whose name needs no quoting in a path of SQLite.
var ttlField = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// createIndexes keeps expireAfterSeconds to itself, and has FerretDB make the rest.
func (s *server) createIndexes(ctx context.Context, d *database, c *command) (*wirebson.Document, error) {
	type ttl struct {
		name, field string
		seconds     int64
	}
	var expiring []ttl
	for _, item := range c.array("indexes") {
		index, ok := item.(*wirebson.Document)
		if !ok {
			return nil, failure{14, "each index must be an object"}
		}
		if after := index.Get("expireAfterSeconds"); after != nil {
			key, _ := index.Get("key").(*wirebson.Document)
			name, _ := index.Get("name").(string)
			seconds, ok := integer(after)
			if f, isFloat := after.(float64); isFloat {
				seconds, ok = int64(f), true
			}
			if key == nil || key.Len() != 1 || !ttlField.MatchString(key.Command()) || !ok || seconds < 0 {
				return nil, failure{67, "expireAfterSeconds needs a whole number of seconds and an index on one top-level field"}
			}
			expiring = append(expiring, ttl{name, key.Command(), seconds})
		}
		index.Remove("expireAfterSeconds")
		index.Remove("background")
	}
	put(c.doc, "$db", c.database)
	reply, err := s.ferret.call(c.doc)
	d.forget(false)
	if err != nil || !ok(reply) || len(expiring) == 0 {
		return reply, err
	}
	collection, err := c.collection()
	if err != nil {
		return nil, err
	}
	t, err := d.table(ctx, collection)
	if err != nil || t == nil {
		return nil, fmt.Errorf("the collection of a TTL index was not made: %w", err)
	}
	return reply, d.transaction(ctx, func(tx *sql.Conn) error {
		queries := []string{`CREATE TABLE IF NOT EXISTS ` + ttlTable +
			` (collection TEXT, name TEXT, field TEXT, seconds INTEGER, PRIMARY KEY (collection, name)) STRICT`}
		for _, x := range expiring {
			index := strings.TrimSuffix(t.name, `"`) + `_standin_ttl_` + x.field + `"`
			queries = append(queries, fmt.Sprintf(`CREATE INDEX IF NOT EXISTS %s ON %s (%s) WHERE %s`, index, t.name, ttlText(x.field), ttlTest(x.field)))
		}
		for _, q := range queries {
			if _, err := tx.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		for _, x := range expiring {
			if _, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO `+ttlTable+` VALUES (?, ?, ?, ?)`, collection, x.name, x.field, x.seconds); err != nil {
				return err
			}
		}
		return nil
	})
}

func ttlText(field string) string { return docColumn + `->>'$."` + field + `"'` }
func ttlTest(field string) string { return docColumn + `->>'$."$s".p."` + field + `".t' = 'date'` }

// syncTTL forgets the expiry of what FerretDB has dropped, and follows a collection to its new name.
func (d *database) syncTTL(ctx context.Context, c *command) error {
	db, err := d.open()
	if err != nil || db == nil {
		return err
	}
	var query string
	args := []any{}
	switch c.name {
	case "drop":
		query, args = `DELETE FROM `+ttlTable+` WHERE collection = ?`, append(args, c.doc.Get("drop"))
	case "dropIndexes":
		query, args = `DELETE FROM `+ttlTable+` WHERE collection = ?`, append(args, c.doc.Get("dropIndexes"))
		if name, ok := c.doc.Get("index").(string); ok && name != "*" {
			query, args = query+` AND name = ?`, append(args, name)
		}
	default:
		source, _ := c.doc.Get("renameCollection").(string)
		target, _ := c.doc.Get("to").(string)
		_, source, _ = strings.Cut(source, ".")
		_, target, _ = strings.Cut(target, ".")
		query, args = `UPDATE OR REPLACE `+ttlTable+` SET collection = ? WHERE collection = ?`, append(args, target, source)
	}
	_, err = db.ExecContext(ctx, query, args...)
	if err != nil && strings.Contains(err.Error(), "no such table") {
		return nil
	}
	return err
}

// sweepForever deletes expired documents and idle cursors until the context ends.
func (s *server) sweepForever(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := s.sweep(ctx, time.Now()); err != nil {
			slog.Error("Expired documents could not be deleted; the next sweep tries again.", "error", err)
		}
		s.cursors.expire(time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sweep deletes what has expired by then, in all databases.
func (s *server) sweep(ctx context.Context, now time.Time) error {
	paths, err := filepath.Glob(filepath.Join(s.store.dir, "*.sqlite"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		d := s.store.database(strings.TrimSuffix(filepath.Base(path), ".sqlite"))
		if err := d.sweep(ctx, now); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

type expiry struct {
	collection, field string
	seconds           int64
}

func (d *database) sweep(ctx context.Context, now time.Time) error {
	all, err := d.expiries(ctx)
	if err != nil {
		return err
	}
	for _, e := range all {
		for more := true; more; {
			if more, err = d.sweepSome(ctx, e.collection, e.field, now.UnixMilli()-e.seconds*1000); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *database) expiries(ctx context.Context) ([]expiry, error) {
	d.files.RLock()
	defer d.files.RUnlock()
	db, err := d.open()
	if err != nil || db == nil {
		return nil, err
	}
	r, err := db.QueryContext(ctx, `SELECT collection, field, seconds FROM `+ttlTable)
	if err != nil {
		if strings.Contains(err.Error(), "no such table") {
			return nil, nil
		}
		return nil, err
	}
	defer r.Close()
	var all []expiry
	for r.Next() {
		var e expiry
		if err := r.Scan(&e.collection, &e.field, &e.seconds); err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, r.Err()
}

func (d *database) sweepSome(ctx context.Context, collection, field string, before int64) (more bool, err error) {
	d.write.Lock()
	defer d.write.Unlock()
	t, err := d.table(ctx, collection)
	if err != nil || t == nil {
		return false, err
	}
	err = d.transaction(ctx, func(tx *sql.Conn) error {
		done, err := tx.ExecContext(ctx, fmt.Sprintf(`DELETE FROM %[1]s WHERE rowid IN (SELECT rowid FROM %[1]s WHERE %[2]s AND %[3]s < ? LIMIT %[4]d)`,
			t.name, ttlTest(field), ttlText(field), sweepChunk), before)
		if err != nil {
			return err
		}
		n, err := done.RowsAffected()
		more = n == sweepChunk
		return err
	})
	return more, err
}
