package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/FerretDB/wire/wirebson"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// pragmas of every connection to the SQLite files. In WAL mode with synchronous=normal an acknowledged write is in the
// page cache of the operating system: it survives the end of this process, however sudden, but not a power failure.
var pragmas = url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(wal)", "synchronous(normal)"}}

const (
	docColumn  = `_ferretdb_sjson`
	idColumn   = docColumn + `->"_id"` // as in FerretDB's unique index
	idType     = docColumn + `->>'$."$s".p._id.t'`
	idText     = docColumn + `->>'$._id'`
	metaTable  = `_ferretdb_collections`
	ttlTable   = `_standin_ttl`
	maxInWhere = 500
)

// store reads and writes FerretDB's SQLite files directly, where FerretDB would scan a whole table or race with itself.
type store struct {
	dir string
	mu  sync.Mutex
	dbs map[string]*database
}

// database is one SQLite file. A writer holds write for its whole command, FerretDB's writing commands included, so
// that nothing happens between what a command reads and what it writes.
type database struct {
	path  string
	write sync.Mutex
	files sync.RWMutex // held by readers, so that the file is not dropped under them

	mu     sync.Mutex
	sql    *sql.DB
	tables map[string]*table
	cached map[string]*sql.Stmt
	age    int // counts forget: what was looked up before it is not kept after it
}

type table struct{ name string }

// querier is a database or a transaction's connection.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func newStore(dir string) *store { return &store{dir: dir, dbs: map[string]*database{}} }

func (s *store) database(name string) *database {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.dbs[name]
	if d == nil {
		d = &database{path: filepath.Join(s.dir, name+".sqlite")}
		s.dbs[name] = d
	}
	return d
}

// open returns the SQLite handle, or nil where the file does not exist yet.
func (d *database) open() (*sql.DB, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sql != nil {
		return d.sql, nil
	}
	if _, err := os.Stat(d.path); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	uri := url.URL{Scheme: "file", Opaque: (&url.URL{Path: d.path}).EscapedPath(), RawQuery: pragmas.Encode()}
	db, err := sql.Open("sqlite", uri.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(32)
	d.sql, d.tables, d.cached = db, map[string]*table{}, map[string]*sql.Stmt{}
	return db, nil
}

// forget drops what is known about the tables, after FerretDB may have changed them; closed with the file's removal.
func (d *database) forget(removed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.age++
	if d.sql == nil {
		return
	}
	d.tables = map[string]*table{}
	for _, stmt := range d.cached {
		_ = stmt.Close()
	}
	d.cached = map[string]*sql.Stmt{}
	if removed {
		_ = d.sql.Close()
		d.sql = nil
	}
}

// table finds a collection; nil where it does not exist. errForward for a capped one, whose tables differ.
func (d *database) table(ctx context.Context, collection string) (*table, error) {
	db, err := d.open()
	if db == nil {
		return nil, err
	}
	d.mu.Lock()
	t, age := d.tables[collection], d.age
	d.mu.Unlock()
	if t != nil {
		return t, nil
	}
	var name string
	var capped int64
	err = db.QueryRowContext(ctx, `SELECT table_name, coalesce(settings->>'$.cappedSize', 0) FROM `+metaTable+` WHERE name = ?`,
		collection).Scan(&name, &capped)
	if errors.Is(err, sql.ErrNoRows) || (err != nil && strings.Contains(err.Error(), "no such table")) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if capped > 0 {
		return nil, errForward
	}
	t = &table{name: quoteName(name)}
	for _, q := range []string{
		// Pages of _id in order, one type after the other; and the expression that FerretDB's own queries use,
		// which does not match the index that it makes.
		fmt.Sprintf(`CREATE INDEX IF NOT EXISTS %s ON %s (%s, %s)`, quoteName(name+"_standin_order"), t.name, idType, idText),
		fmt.Sprintf(`CREATE INDEX IF NOT EXISTS %s ON %s (%s->'$._id')`, quoteName(name+"_standin_id"), t.name, docColumn),
	} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	if d.age == age {
		d.tables[collection] = t
	}
	d.mu.Unlock()
	return t, nil
}

func quoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// prepared returns a statement that is kept until the tables change.
func (d *database) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sql == nil {
		return nil, errors.New("the database was dropped")
	}
	if stmt := d.cached[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := d.sql.PrepareContext(ctx, query)
	if err == nil {
		d.cached[query] = stmt
	}
	return stmt, err
}

// lockDirectory keeps a second stand-in from the same data until release, or until this process ends, however it ends.
func lockDirectory(dir string) (release func(), err error) {
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: filepath.Join(dir, "lock")}).EscapedPath()}).String())
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(context.Background())
	if err == nil {
		_, err = conn.ExecContext(context.Background(), `BEGIN EXCLUSIVE`)
	}
	if err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("--dbpath %s is in use by another mongodb-standin, or cannot be written: %w", dir, err)
	}
	return func() {
		_ = conn.Close()
		_ = db.Close()
	}, nil
}

// selection is a compiled read.
type selection struct {
	filter *filter
	sort   int // of _id: 1, -1, or 0 for any order
}

// rows of candidates; next returns nil at the end.
type rows interface {
	next() (id int64, doc *wirebson.Document, err error)
	close()
}

type sqlRows struct{ *sql.Rows }

func (r sqlRows) next() (int64, *wirebson.Document, error) {
	if !r.Rows.Next() {
		return 0, nil, r.Err()
	}
	var id int64
	var text sql.RawBytes
	if err := r.Scan(&id, &text); err != nil {
		return 0, nil, err
	}
	doc, err := decodeDocument(text)
	return id, doc, err
}

func (r sqlRows) close() { _ = r.Rows.Close() }

type stored struct {
	row int64
	doc *wirebson.Document
}

type listRows struct{ list []stored }

func (r *listRows) next() (int64, *wirebson.Document, error) {
	if len(r.list) == 0 {
		return 0, nil, nil
	}
	first := r.list[0]
	r.list = r.list[1:]
	return first.row, first.doc, nil
}

func (r *listRows) close() {}

// candidates returns the rows that may pass the filter, in the order asked for: by the index on _id where the filter
// says enough about it, else all. errForward where the order is beyond the index.
func (d *database) candidates(ctx context.Context, q querier, t *table, s selection) (rows, error) {
	base := `SELECT rowid, ` + docColumn + ` FROM ` + t.name
	if s.filter.pinned {
		return d.byIDs(ctx, q, base, s)
	}
	var where []string
	var args []any
	if s.filter.rangeType != "" {
		where = append(where, idType+` = ?`)
		args = append(args, s.filter.rangeType)
		for _, b := range s.filter.bounds {
			where = append(where, idText+` `+b.operator+` ?`)
			args = append(args, b.text)
		}
	}
	if len(where) > 0 {
		base += ` WHERE ` + strings.Join(where, ` AND `)
	}
	if s.sort != 0 {
		if s.filter.rangeType == "" {
			uniform, err := d.uniformIDs(ctx, q, t)
			if err != nil {
				return nil, err
			}
			if !uniform {
				return nil, errForward
			}
		}
		direction := ``
		if s.sort < 0 {
			direction = ` DESC`
		}
		if s.filter.rangeType != "" {
			// The type is given: naming it here again would make SQLite sort what the index has in order.
			base += ` ORDER BY ` + idText + direction
		} else {
			base += ` ORDER BY ` + idType + direction + `, ` + idText + direction
		}
	}
	r, err := q.QueryContext(ctx, base, args...)
	if err != nil {
		return nil, err
	}
	return sqlRows{r}, nil
}

// uniformIDs tells whether all _ids are strings, or all object ids, or all integers of one type: then SQLite's order of
// their texts is MongoDB's.
func (d *database) uniformIDs(ctx context.Context, q querier, t *table) (bool, error) {
	r, err := q.QueryContext(ctx, fmt.Sprintf(`SELECT (SELECT min(%[1]s) FROM %[2]s), (SELECT max(%[1]s) FROM %[2]s)`, idType, t.name))
	if err != nil {
		return false, err
	}
	defer r.Close()
	var low, high sql.NullString
	if r.Next() {
		if err := r.Scan(&low, &high); err != nil {
			return false, err
		}
	}
	return low == high && (!low.Valid || slices.Contains([]string{"string", "objectId", "int", "long", "date"}, low.String)), r.Err()
}

func (d *database) byIDs(ctx context.Context, q querier, base string, s selection) (rows, error) {
	texts := make([]any, 0, len(s.filter.ids))
	seen := make(map[string]bool, len(s.filter.ids))
	for _, id := range s.filter.ids {
		text, err := scalarText(id)
		if err != nil || seen[text] {
			continue // no stored document can have an _id that cannot be stored
		}
		seen[text] = true
		texts = append(texts, text)
	}
	out := &listRows{}
	for chunk := range slices.Chunk(texts, maxInWhere) {
		query := base + ` WHERE ` + idColumn + ` = ?`
		if len(chunk) > 1 {
			query = base + ` WHERE ` + idColumn + ` IN (?` + strings.Repeat(`,?`, len(chunk)-1) + `)`
		}
		r, err := d.queryFew(ctx, q, query, chunk)
		if err != nil {
			return nil, err
		}
		out.list = append(out.list, r...)
	}
	if s.sort != 0 {
		var mixed bool
		slices.SortFunc(out.list, func(a, b stored) int {
			order, ok := compare(a.doc.Get("_id"), b.doc.Get("_id"))
			mixed = mixed || !ok
			return order * s.sort
		})
		if mixed {
			return nil, errForward
		}
	}
	return out, nil
}

func (d *database) queryFew(ctx context.Context, q querier, query string, args []any) ([]stored, error) {
	var r *sql.Rows
	var err error
	if _, whole := q.(*sql.DB); whole && len(args) == 1 {
		stmt, e := d.prepared(ctx, query)
		if e != nil {
			return nil, e
		}
		r, err = stmt.QueryContext(ctx, args...)
	} else {
		r, err = q.QueryContext(ctx, query, args...)
	}
	if err != nil {
		return nil, err
	}
	rows := sqlRows{r}
	defer rows.close()
	var out []stored
	for {
		row, doc, err := rows.next()
		if doc == nil || err != nil {
			return out, err
		}
		out = append(out, stored{row, doc})
	}
}

// transaction runs f on a connection with SQLite's write lock; the caller holds d.write.
func (d *database) transaction(ctx context.Context, f func(tx *sql.Conn) error) error {
	db, err := d.open()
	if err != nil {
		return err
	}
	if db == nil {
		return errors.New("the database was dropped")
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, `BEGIN IMMEDIATE`); err != nil {
		return err
	}
	committed := false
	defer func() {
		if !committed { // also where f panicked: the connection goes back to the pool
			_, _ = conn.ExecContext(ctx, `ROLLBACK`) // fails only where SQLite has rolled back by itself
		}
	}()
	if err := f(conn); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, `COMMIT`)
	committed = err == nil
	return err
}

// duplicate tells whether a write broke a unique index.
func duplicate(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE
}
