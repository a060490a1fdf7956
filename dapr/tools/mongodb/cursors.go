package main

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/FerretDB/wire/wirebson"
)

const (
	// maxBatchBytes keeps a reply below the 16 MiB that a document may have.
	maxBatchBytes = 12 << 20
	// cursorIdle is how long a cursor waits for its next getMore, as in MongoDB.
	cursorIdle = 10 * time.Minute
	// ownCursor marks the ids of the stand-in's cursors; FerretDB's are small numbers.
	ownCursor = int64(1) << 62
)

// cursor is a find under way: an open SQLite read, which sees the data as of its start.
type cursor struct {
	mu      sync.Mutex
	ns      string
	rows    rows
	match   matcher
	project func(*wirebson.Document) *wirebson.Document
	skip    int64
	left    int64 // documents up to the limit; < 0 for none
	done    bool
	held    *wirebson.Document // read, but beyond the last batch
	expires time.Time
}

// batch returns the next documents: none, or at most limit of them (0: as many as fit a reply).
func (c *cursor) batch(limit int64, none bool) (*wirebson.Array, error) {
	docs := wirebson.MakeArray(0)
	if none {
		return docs, nil
	}
	size := 0
	for limit == 0 || int64(docs.Len()) < limit {
		doc, err := c.next()
		if err != nil {
			return nil, err
		}
		if doc == nil {
			c.done = true
			return docs, nil
		}
		raw, err := c.project(doc).Encode()
		if err != nil {
			return nil, err
		}
		if size += len(raw); size > maxBatchBytes && docs.Len() > 0 {
			c.held = doc
			return docs, nil
		}
		if err := docs.Add(raw); err != nil {
			return nil, err
		}
		if c.left > 0 {
			if c.left--; c.left == 0 {
				c.done = true
				return docs, nil
			}
		}
	}
	return docs, nil
}

func (c *cursor) next() (*wirebson.Document, error) {
	if doc := c.held; doc != nil {
		c.held = nil
		return doc, nil
	}
	for {
		_, doc, err := c.rows.next()
		if err != nil || doc == nil {
			return nil, err
		}
		if !c.match(doc) {
			continue
		}
		if c.skip > 0 {
			c.skip--
			continue
		}
		return doc, nil
	}
}

// cursors of all connections: a driver may continue one on another connection of its pool.
type cursors struct {
	mu  sync.Mutex
	all map[int64]*cursor
}

func (cs *cursors) add(c *cursor) int64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	id := int64(binary.BigEndian.Uint64(b[:])>>2) | ownCursor
	c.expires = time.Now().Add(cursorIdle)
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.all[id] = c
	return id
}

// get finds a cursor of a namespace.
func (cs *cursors) get(id int64, ns string) *cursor {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.all[id]
	if c == nil || c.ns != ns {
		return nil
	}
	c.expires = time.Now().Add(cursorIdle)
	return c
}

func (cs *cursors) close(id int64, ns string) bool {
	c := cs.get(id, ns)
	if c == nil {
		return false
	}
	cs.mu.Lock()
	delete(cs.all, id)
	cs.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows.close()
	return true
}

// drop closes the cursors whose namespace begins so.
func (cs *cursors) drop(prefix string) {
	cs.closeIf(func(c *cursor) bool { return strings.HasPrefix(c.ns, prefix) })
}

// expire closes the cursors that nobody continues.
func (cs *cursors) expire(now time.Time) {
	cs.closeIf(func(c *cursor) bool { return c.expires.Before(now) })
}

func (cs *cursors) closeIf(test func(*cursor) bool) {
	found := map[int64]string{}
	cs.mu.Lock()
	for id, c := range cs.all {
		if test(c) {
			found[id] = c.ns
		}
	}
	cs.mu.Unlock()
	for id, ns := range found {
		cs.close(id, ns)
	}
}

// getMore continues one of the stand-in's cursors; errForward for FerretDB's.
func (s *server) getMore(c *command) (*wirebson.Document, error) {
	id, _ := c.doc.Get("getMore").(int64)
	if id&ownCursor == 0 {
		return nil, errForward
	}
	collection, _ := c.doc.Get("collection").(string)
	ns := c.database + "." + collection
	cur := s.cursors.get(id, ns)
	if cur == nil {
		return nil, failure{43, fmt.Sprintf("cursor id %d not found", id)}
	}
	batch, err := c.number("batchSize")
	if err != nil || batch < 0 {
		return nil, failure{2, "batchSize must be a number, and not negative"}
	}
	cur.mu.Lock()
	docs, err := cur.batch(batch, false)
	done := cur.done
	cur.mu.Unlock()
	if err != nil || done {
		s.cursors.close(id, ns)
		id = 0
	}
	if err != nil {
		return nil, err
	}
	return wirebson.MustDocument("cursor", wirebson.MustDocument("nextBatch", docs, "id", id, "ns", ns), "ok", float64(1)), nil
}

// killCursors closes the stand-in's cursors; errForward where all of the ids are FerretDB's.
func (s *server) killCursors(c *command) (*wirebson.Document, error) {
	collection, err := c.collection()
	if err != nil {
		return nil, err
	}
	killed, missing := wirebson.MakeArray(0), wirebson.MakeArray(0)
	for _, item := range c.array("cursors") {
		id, _ := item.(int64)
		if id&ownCursor == 0 {
			return nil, errForward
		}
		if s.cursors.close(id, c.database+"."+collection) {
			_ = killed.Add(id)
		} else {
			_ = missing.Add(id)
		}
	}
	return wirebson.MustDocument("cursorsKilled", killed, "cursorsNotFound", missing, "cursorsAlive", wirebson.MakeArray(0),
		"cursorsUnknown", wirebson.MakeArray(0), "ok", float64(1)), nil
}
