package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/FerretDB/wire/wirebson"
)

// command is one request, its sections merged into one document.
type command struct {
	name     string
	database string
	doc      *wirebson.Document
}

func (c *command) collection() (string, error) {
	name, _ := c.doc.Get(c.name).(string)
	if name == "" {
		return "", failure{73, "Invalid namespace specified '" + c.database + ".'"}
	}
	return name, nil
}

func (c *command) array(name string) []any {
	array, _ := c.doc.Get(name).(*wirebson.Array)
	if array == nil {
		return nil
	}
	out := make([]any, 0, array.Len())
	for item := range array.Values() {
		out = append(out, item)
	}
	return out
}

// ordered: whether the first failing write ends the command.
func (c *command) ordered() bool {
	v := c.doc.Get("ordered")
	return v == nil || truthy(v)
}

// number reads an optional whole number.
func (c *command) number(name string) (int64, error) {
	switch v := c.doc.Get(name).(type) {
	case nil:
		return 0, nil
	case float64:
		return int64(v), nil
	default:
		n, ok := integer(v)
		if !ok {
			return 0, failure{14, fmt.Sprintf("BSON field '%s' must be a number", name)}
		}
		return n, nil
	}
}

// result of one write command.
type result struct {
	n, modified int32
	upserted    []any
	errors      []any
}

func (r *result) document(command string) *wirebson.Document {
	doc := wirebson.MustDocument("n", r.n)
	if command == "update" {
		put(doc, "nModified", r.modified)
		if len(r.upserted) > 0 {
			put(doc, "upserted", wirebson.MustArray(r.upserted...))
		}
	}
	if len(r.errors) > 0 {
		put(doc, "writeErrors", wirebson.MustArray(r.errors...))
	}
	put(doc, "ok", float64(1))
	return doc
}

// fail notes a write's error; stop is true where the command ends here, err where the whole command fails.
func (r *result) fail(index int, ns string, doc *wirebson.Document, err error) error {
	var f failure
	entry := wirebson.MustDocument("index", int32(index))
	switch {
	case duplicate(err) && !strings.Contains(err.Error(), "__id_'"):
		put(entry, "code", int32(11000))
		put(entry, "errmsg", fmt.Sprintf("E11000 duplicate key error collection: %s: %s", ns, err))
	case duplicate(err):
		put(entry, "code", int32(11000))
		put(entry, "errmsg", fmt.Sprintf("E11000 duplicate key error collection: %s index: _id_ dup key: { _id: %v }", ns, doc.Get("_id")))
		put(entry, "keyPattern", wirebson.MustDocument("_id", int32(1)))
		put(entry, "keyValue", wirebson.MustDocument("_id", doc.Get("_id")))
	case errors.As(err, &f):
		put(entry, "code", f.code)
		put(entry, "errmsg", f.message)
	case errors.Is(err, errUnsupportedValue):
		put(entry, "code", int32(2))
		put(entry, "errmsg", err.Error())
	default:
		return err
	}
	r.errors = append(r.errors, entry)
	return nil
}

// writeOne does one write of a command within its transaction.
type writeOne func(ctx context.Context, tx *sql.Conn, t *table, r *result, index int) (*wirebson.Document, error)

// write answers insert, update and delete. The caller holds the database's write lock. Everything is compiled before
// anything is written, so errForward leaves no trace.
func (s *server) write(ctx context.Context, c *command) (*wirebson.Document, error) {
	collection, err := c.collection()
	if err != nil {
		return nil, err
	}
	var writes []writeOne
	d := s.store.database(c.database)
	list := c.array(map[string]string{"insert": "documents", "update": "updates", "delete": "deletes"}[c.name])
	for _, item := range list {
		doc, ok := item.(*wirebson.Document)
		if !ok {
			return nil, failure{14, "each write must be an object"}
		}
		var w writeOne
		switch c.name {
		case "insert":
			w = compileInsert(doc)
		case "update":
			w, err = d.compileUpdate(doc)
		default:
			w, err = d.compileDelete(doc)
		}
		if err != nil {
			return nil, err
		}
		writes = append(writes, w)
	}
	t, err := d.table(ctx, collection)
	if err != nil {
		return nil, err
	}
	if t == nil {
		if c.name == "delete" {
			return (&result{}).document(c.name), nil
		}
		reply, err := s.ferret.call(wirebson.MustDocument("create", collection, "$db", c.database))
		if err != nil {
			return nil, err
		}
		if !ok(reply) {
			return reply, nil
		}
		d.forget(false)
		if t, err = d.table(ctx, collection); err != nil || t == nil {
			return nil, errors.Join(errors.New("the collection could not be created"), err)
		}
	}
	r := &result{}
	err = d.transaction(ctx, func(tx *sql.Conn) error {
		for i, w := range writes {
			doc, err := w(ctx, tx, t, r, i)
			if err == nil {
				continue
			}
			if err := r.fail(i, c.database+"."+collection, doc, err); err != nil {
				return err
			}
			if c.ordered() {
				break
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r.document(c.name), nil
}

func compileInsert(given *wirebson.Document) writeOne {
	return func(ctx context.Context, tx *sql.Conn, t *table, r *result, _ int) (*wirebson.Document, error) {
		doc, err := insert(ctx, tx, t, given)
		if err == nil {
			r.n++
		}
		return doc, err
	}
}

// insert adds a document, with _id as its first field, made up where it has none.
func insert(ctx context.Context, tx *sql.Conn, t *table, given *wirebson.Document) (*wirebson.Document, error) {
	id := given.Get("_id")
	if id == nil {
		id = newObjectID()
	}
	doc := wirebson.MakeDocument(given.Len() + 1)
	put(doc, "_id", id)
	for name, value := range given.All() {
		if name != "_id" {
			put(doc, name, value)
		}
	}
	switch id.(type) {
	case *wirebson.Array, wirebson.Regex:
		return doc, failure{53, "The '_id' value cannot be an array or a regular expression"}
	}
	text, err := encodeDocument(doc)
	if err != nil {
		return doc, err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO `+t.name+` (`+docColumn+`) VALUES (?)`, text)
	return doc, err
}

func newObjectID() wirebson.ObjectID {
	var id wirebson.ObjectID
	_, _ = rand.Read(id[:]) // never fails
	binary.BigEndian.PutUint32(id[:4], uint32(time.Now().Unix()))
	return id
}

// compileQuery compiles the filter "q" of an update or a delete, which may have these fields besides; what has
// others is FerretDB's to do.
func compileQuery(u *wirebson.Document, others ...string) (*filter, error) {
	for name := range u.All() {
		if name != "q" && name != "hint" && name != "comment" && !slices.Contains(others, name) {
			return nil, errForward
		}
	}
	query, _ := u.Get("q").(*wirebson.Document)
	return compileFilter(query)
}

func (d *database) compileUpdate(u *wirebson.Document) (writeOne, error) {
	f, err := compileQuery(u, "u", "upsert", "multi")
	if err != nil {
		return nil, err
	}
	apply, err := compileUpdate(u.Get("u"))
	if err != nil {
		return nil, err
	}
	multi, upsert := u.Get("multi") != nil && truthy(u.Get("multi")), u.Get("upsert") != nil && truthy(u.Get("upsert"))
	return func(ctx context.Context, tx *sql.Conn, t *table, r *result, index int) (*wirebson.Document, error) {
		found, err := d.matching(ctx, tx, t, f, !multi)
		if err != nil {
			return nil, err
		}
		for _, s := range found {
			next, err := apply(s.doc, false)
			if err != nil {
				return s.doc, err
			}
			if !sameValue(next.Get("_id"), s.doc.Get("_id")) {
				return s.doc, failure{66, "Performing an update on the path '_id' would modify the immutable field '_id'"}
			}
			r.n++
			if sameValue(next, s.doc) {
				continue
			}
			text, err := encodeDocument(next)
			if err != nil {
				return next, err
			}
			if _, err := tx.ExecContext(ctx, `UPDATE `+t.name+` SET `+docColumn+` = ? WHERE rowid = ?`, text, s.row); err != nil {
				return next, err
			}
			r.modified++
		}
		if len(found) > 0 || !upsert {
			return nil, nil
		}
		seed := wirebson.MakeDocument(len(f.equalities))
		for _, e := range f.equalities {
			put(seed, e.name, e.value)
		}
		next, err := apply(seed, true)
		if err != nil {
			return seed, err
		}
		doc, err := insert(ctx, tx, t, next)
		if err != nil {
			return doc, err
		}
		r.n++
		r.upserted = append(r.upserted, wirebson.MustDocument("index", int32(index), "_id", doc.Get("_id")))
		return doc, nil
	}, nil
}

// matching collects the documents that pass a filter, before any of them is changed.
func (d *database) matching(ctx context.Context, tx querier, t *table, f *filter, one bool) ([]stored, error) {
	rows, err := d.candidates(ctx, tx, t, selection{filter: f})
	if err != nil {
		return nil, err
	}
	defer rows.close()
	var out []stored
	for {
		row, doc, err := rows.next()
		if err != nil || doc == nil {
			return out, err
		}
		if f.match(doc) {
			out = append(out, stored{row, doc})
			if one {
				return out, nil
			}
		}
	}
}

func (d *database) compileDelete(u *wirebson.Document) (writeOne, error) {
	f, err := compileQuery(u, "limit")
	if err != nil {
		return nil, err
	}
	one := u.Get("limit") != nil && truthy(u.Get("limit"))
	return func(ctx context.Context, tx *sql.Conn, t *table, r *result, _ int) (*wirebson.Document, error) {
		if f.empty && !one {
			done, err := tx.ExecContext(ctx, `DELETE FROM `+t.name)
			if err != nil {
				return nil, err
			}
			n, err := done.RowsAffected()
			r.n += int32(n)
			return nil, err
		}
		found, err := d.matching(ctx, tx, t, f, one)
		if err != nil {
			return nil, err
		}
		for _, s := range found {
			if _, err := tx.ExecContext(ctx, `DELETE FROM `+t.name+` WHERE rowid = ?`, s.row); err != nil {
				return nil, err
			}
			r.n++
		}
		return nil, nil
	}, nil
}

// find answers find from the tables; errForward where its options or filter are beyond that.
func (s *server) find(ctx context.Context, c *command) (*wirebson.Document, error) {
	collection, err := c.collection()
	if err != nil {
		return nil, err
	}
	for name := range c.doc.All() {
		switch name {
		case "find", "filter", "sort", "projection", "limit", "skip", "batchSize", "singleBatch", "$db", "hint", "comment",
			"maxTimeMS", "noCursorTimeout", "allowPartialResults", "allowDiskUse":
		default:
			return nil, errForward
		}
	}
	query, _ := c.doc.Get("filter").(*wirebson.Document)
	f, err := compileFilter(query)
	if err != nil {
		return nil, err
	}
	sel := selection{filter: f}
	if order, _ := c.doc.Get("sort").(*wirebson.Document); order != nil && order.Len() > 0 {
		by, direction := order.GetByIndex(0)
		n, isInt := integer(direction)
		if fl, isFloat := direction.(float64); isFloat {
			n, isInt = int64(fl), true
		}
		if order.Len() != 1 || by != "_id" || !isInt || (n != 1 && n != -1) {
			return nil, errForward
		}
		sel.sort = int(n)
	}
	cur := &cursor{ns: c.database + "." + collection, match: f.match, left: -1}
	projection, _ := c.doc.Get("projection").(*wirebson.Document)
	if cur.project, err = compileProjection(projection); err != nil {
		return nil, err
	}
	limit, err1 := c.number("limit")
	skip, err2 := c.number("skip")
	batch, err3 := c.number("batchSize")
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	if c.doc.Get("batchSize") == nil {
		batch = 101
	}
	single := c.doc.Get("singleBatch") != nil && truthy(c.doc.Get("singleBatch"))
	if limit < 0 || batch < 0 || skip < 0 {
		return nil, failure{2, "limit, skip and batchSize must not be negative"}
	}
	if limit > 0 {
		cur.left = limit
	}
	cur.skip = skip

	d := s.store.database(c.database)
	t, err := d.table(ctx, collection)
	if err != nil {
		return nil, err
	}
	cur.rows = &listRows{}
	if t != nil {
		db, err := d.open()
		if err != nil || db == nil {
			return nil, errors.Join(errForward, err)
		}
		// A cursor outlives its command.
		if cur.rows, err = d.candidates(context.WithoutCancel(ctx), db, t, sel); err != nil {
			return nil, err
		}
	}
	docs, err := cur.batch(batch, batch == 0)
	if err != nil {
		cur.rows.close()
		return nil, err
	}
	id := int64(0)
	if cur.done || single {
		cur.rows.close()
	} else {
		id = s.cursors.add(cur)
	}
	return wirebson.MustDocument("cursor", wirebson.MustDocument("firstBatch", docs, "id", id, "ns", cur.ns), "ok", float64(1)), nil
}

func compileProjection(p *wirebson.Document) (func(*wirebson.Document) *wirebson.Document, error) {
	if p == nil || p.Len() == 0 {
		return func(doc *wirebson.Document) *wirebson.Document { return doc }, nil
	}
	named := map[string]bool{}
	withID, include, decided := true, false, false
	for name, value := range p.All() {
		switch value.(type) {
		case bool, int32, int64, float64:
		default:
			return nil, errForward
		}
		if strings.ContainsAny(name, ".$") {
			return nil, errForward
		}
		if name == "_id" {
			withID = truthy(value)
			continue
		}
		if decided && include != truthy(value) {
			return nil, errForward
		}
		include, decided = truthy(value), true
		named[name] = true
	}
	if !decided {
		include = withID // {_id: 1} is only _id, {_id: 0} is all the rest
	}
	return func(doc *wirebson.Document) *wirebson.Document {
		out := wirebson.MakeDocument(doc.Len())
		for name, value := range doc.All() {
			if (name == "_id" && withID) || (name != "_id" && named[name] == include) {
				_ = out.Add(name, value)
			}
		}
		return out
	}, nil
}

// count answers count from the tables.
func (s *server) count(ctx context.Context, c *command) (*wirebson.Document, error) {
	collection, err := c.collection()
	if err != nil {
		return nil, err
	}
	query, _ := c.doc.Get("query").(*wirebson.Document)
	limit, err1 := c.number("limit")
	skip, err2 := c.number("skip")
	if errors.Join(err1, err2) != nil || c.doc.Get("collation") != nil {
		return nil, errForward
	}
	n, err := s.countMatching(ctx, c.database, collection, query, skip, limit)
	if err != nil {
		return nil, err
	}
	return wirebson.MustDocument("n", int32(n), "ok", float64(1)), nil
}

func (s *server) countMatching(ctx context.Context, database, collection string, query *wirebson.Document, skip, limit int64) (int64, error) {
	f, err := compileFilter(query)
	if err != nil {
		return 0, err
	}
	d := s.store.database(database)
	t, err := d.table(ctx, collection)
	if err != nil || t == nil {
		return 0, err
	}
	db, err := d.open()
	if err != nil || db == nil {
		return 0, err
	}
	var n int64
	if f.empty {
		if err := db.QueryRowContext(ctx, `SELECT count(*) FROM `+t.name).Scan(&n); err != nil {
			return 0, err
		}
	} else {
		rows, err := d.candidates(ctx, db, t, selection{filter: f})
		if err != nil {
			return 0, err
		}
		defer rows.close()
		for {
			_, doc, err := rows.next()
			if err != nil {
				return 0, err
			}
			if doc == nil {
				break
			}
			if f.match(doc) {
				n++
			}
		}
	}
	n = max(n-skip, 0)
	if limit > 0 {
		n = min(n, limit)
	}
	return n, nil
}

// aggregate answers what the drivers' countDocuments sends: [$match, $skip?, $limit?, {$group: {_id: 1, n: {$sum: 1}}}].
func (s *server) aggregate(ctx context.Context, c *command) (*wirebson.Document, error) {
	collection, ok := c.doc.Get("aggregate").(string)
	stages := c.array("pipeline")
	if !ok || len(stages) == 0 || c.doc.Get("collation") != nil {
		return nil, errForward
	}
	var query *wirebson.Document
	var skip, limit int64
	for i, item := range stages {
		stage, ok := item.(*wirebson.Document)
		if !ok || stage.Len() != 1 {
			return nil, errForward
		}
		name, spec := stage.GetByIndex(0)
		last := i == len(stages)-1
		switch {
		case name == "$match" && i == 0 && !last:
			if query, ok = spec.(*wirebson.Document); !ok {
				return nil, errForward
			}
		case name == "$skip" && !last && skip == 0 && limit == 0:
			if skip, ok = integer(spec); !ok || skip < 0 {
				return nil, errForward
			}
		case name == "$limit" && !last && limit == 0:
			if limit, ok = integer(spec); !ok || limit <= 0 {
				return nil, errForward
			}
		case name == "$group" && last:
			group, ok := spec.(*wirebson.Document)
			if !ok || group.Len() != 2 || group.Get("_id") != any(int32(1)) {
				return nil, errForward
			}
			sum, ok := group.Get("n").(*wirebson.Document)
			if !ok || sum.Len() != 1 || sum.Get("$sum") != any(int32(1)) {
				return nil, errForward
			}
		default:
			return nil, errForward
		}
	}
	if name, _ := stages[len(stages)-1].(*wirebson.Document).GetByIndex(0); name != "$group" {
		return nil, errForward
	}
	n, err := s.countMatching(ctx, c.database, collection, query, skip, limit)
	if err != nil {
		return nil, err
	}
	batch := wirebson.MakeArray(1)
	if n > 0 {
		_ = batch.Add(wirebson.MustDocument("_id", int32(1), "n", int32(n)))
	}
	return wirebson.MustDocument("cursor", wirebson.MustDocument("firstBatch", batch, "id", int64(0), "ns", c.database+"."+collection),
		"ok", float64(1)), nil
}
