package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/FerretDB/wire"
	"github.com/FerretDB/wire/wirebson"
)

// server answers MongoDB's wire protocol: by itself where FerretDB would be slow, lacks something or races, else with
// FerretDB's answer.
type server struct {
	users   *users
	replica *replicaSet
	store   *store
	ferret  *ferret
	cursors *cursors
	conns   atomic.Int32
	replies atomic.Int32
	stop    func()
}

// session is one client connection.
type session struct {
	id      int32
	account *account
	login   *login
}

// databaseName: what FerretDB accepts; it is also the name of a file.
var databaseName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,63}$`)

// serve answers connections until the listener is closed.
func (s *server) serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go s.converse(conn)
	}
}

func (s *server) converse(conn net.Conn) {
	defer conn.Close()
	defer func() {
		// A request that no code foresaw must end its own connection, not all of them.
		if p := recover(); p != nil {
			slog.Error("A request failed in an unforeseen way; its connection is closed.", "panic", p)
		}
	}()
	r, w := bufio.NewReader(conn), bufio.NewWriter(conn)
	sess := &session{id: s.conns.Add(1)}
	for {
		header, body, err := wire.ReadMessage(r)
		if err != nil {
			return // the client has gone, or speaks something else
		}
		reply, code := s.answer(sess, body)
		if reply == nil {
			continue
		}
		b, err := reply.MarshalBinary()
		if err != nil {
			slog.Error("A reply could not be written.", "error", err)
			return
		}
		out := &wire.MsgHeader{
			MessageLength: int32(len(b) + wire.MsgHeaderLen), RequestID: s.replies.Add(1), ResponseTo: header.RequestID, OpCode: code,
		}
		if wire.WriteMessage(w, out, reply) != nil || w.Flush() != nil {
			return
		}
	}
}

// answer returns the reply to one message; nil where the client wants none.
func (s *server) answer(sess *session, body wire.MsgBody) (wire.MsgBody, wire.OpCode) {
	switch msg := body.(type) {
	case *wire.OpQuery:
		// Drivers greet with the old message until they know the server.
		doc := errorReply(failure{13, "only hello may be sent as OP_QUERY"})
		if raw, err := msg.Query().Encode(); err == nil {
			if query, err := raw.DecodeDeep(); err == nil && isHello(query.Command()) {
				doc = s.hello(sess, query)
			}
		}
		reply, err := wire.NewOpReply(doc)
		if err != nil {
			return nil, 0
		}
		return reply, wire.OpCodeReply
	case *wire.OpMsg:
		doc, err := merge(msg)
		if err == nil {
			doc, err = s.run(sess, doc)
		}
		if err != nil {
			doc = errorReply(err)
		}
		if msg.Flags.FlagSet(wire.OpMsgMoreToCome) {
			return nil, 0
		}
		reply, err := wire.NewOpMsg(doc)
		if err != nil {
			slog.Error("A reply could not be built.", "error", err)
			return nil, 0
		}
		return reply, wire.OpCodeMsg
	}
	return nil, 0
}

// merge puts the sections of a message into one document: drivers send documents, updates and deletes beside the command.
func merge(msg *wire.OpMsg) (*wirebson.Document, error) {
	doc, err := msg.RawSection0().DecodeDeep()
	if err != nil {
		return nil, failure{2, "The command is not valid BSON: " + err.Error()}
	}
	for _, section := range msg.Sections() {
		if section.Kind != 1 {
			continue
		}
		list := wirebson.MakeArray(len(section.Documents()))
		for _, raw := range section.Documents() {
			item, err := raw.DecodeDeep()
			if err != nil {
				return nil, failure{2, "The command is not valid BSON: " + err.Error()}
			}
			if err := list.Add(item); err != nil {
				return nil, err
			}
		}
		put(doc, section.Identifier, list)
	}
	return doc, nil
}

func isHello(name string) bool { return name == "hello" || name == "isMaster" || name == "ismaster" }

// run answers one command.
func (s *server) run(sess *session, doc *wirebson.Document) (*wirebson.Document, error) {
	c := &command{name: doc.Command(), doc: doc}
	c.database, _ = doc.Get("$db").(string)
	if a := sess.account; a != nil {
		sess.account = s.users.find(a.database, a.name) // whose roles may have changed since the login
	}
	if err := s.users.authorize(sess.account, c.name, c.database, doc); err != nil {
		return nil, err
	}
	if doc.Get("txnNumber") != nil || doc.Get("startTransaction") != nil || doc.Get("autocommit") != nil ||
		c.name == "commitTransaction" || c.name == "abortTransaction" {
		return nil, failure{20, "Transaction numbers are only allowed on a replica set member or mongos"}
	}
	switch c.name {
	case "hello", "isMaster", "ismaster":
		return s.hello(sess, doc), nil
	case "ping", "endSessions":
		return wirebson.MustDocument("ok", float64(1)), nil
	case "logout":
		sess.account = nil
		return wirebson.MustDocument("ok", float64(1)), nil
	case "saslStart":
		l, reply, err := s.users.saslStart(doc, c.database)
		sess.login = l
		if err != nil {
			sess.login = nil
		}
		return reply, err
	case "saslContinue":
		return s.saslContinue(sess, doc)
	case "connectionStatus":
		return sess.status(), nil
	}
	for _, name := range []string{"$db", "lsid", "$clusterTime", "$readPreference", "readConcern", "writeConcern", "apiVersion",
		"apiStrict", "apiDeprecationErrors"} {
		doc.Remove(name)
	}
	if !databaseName.MatchString(c.database) {
		return nil, failure{73, fmt.Sprintf("Invalid namespace specified '%s'. A database's name has up to 63 of a-z, A-Z, 0-9, _ and -.", c.database)}
	}
	switch c.name {
	case "replSetInitiate", "replSetReconfig", "replSetGetConfig", "replSetGetStatus":
		return s.replica.run(c)
	}
	if !s.replica.isPrimary() && c.name != "buildInfo" && c.name != "buildinfo" {
		return nil, failure{10107, "not primary: the replica set is not initiated yet"}
	}
	switch c.name {
	case "createUser", "updateUser":
		return s.users.put(c)
	case "usersInfo":
		return s.users.info(c)
	}
	reply, err := s.execute(c)
	if err == nil && c.name == "listDatabases" {
		s.ownDatabases(sess, reply)
	}
	return reply, err
}

func (s *server) execute(c *command) (*wirebson.Document, error) {
	ctx := context.Background()
	d := s.store.database(c.database)
	switch c.name {
	case "find", "count", "aggregate", "getMore", "killCursors", "listCollections", "listIndexes", "listDatabases", "distinct",
		"explain", "buildInfo", "buildinfo":
		d.files.RLock()
		defer d.files.RUnlock()
	default:
		// Anything else may write. One writer at a time: FerretDB reads and then writes, without a transaction around both.
		if c.name == "renameCollection" {
			source, _ := c.doc.Get("renameCollection").(string)
			name, _, _ := strings.Cut(source, ".")
			d = s.store.database(name)
		}
		d.write.Lock()
		defer d.write.Unlock()
	}
	var reply *wirebson.Document
	var err error
	switch c.name {
	case "find":
		reply, err = s.find(ctx, c)
	case "count":
		reply, err = s.count(ctx, c)
	case "aggregate":
		reply, err = s.aggregate(ctx, c)
	case "getMore":
		reply, err = s.getMore(c)
	case "killCursors":
		reply, err = s.killCursors(c)
	case "insert", "update", "delete":
		reply, err = s.write(ctx, c)
	case "createIndexes":
		return s.createIndexes(ctx, d, c)
	case "dropDatabase":
		return s.dropDatabase(d, c)
	default:
		err = errForward
	}
	if !errors.Is(err, errForward) {
		return reply, err
	}
	return s.forward(ctx, d, c)
}

// forward asks FerretDB.
func (s *server) forward(ctx context.Context, d *database, c *command) (*wirebson.Document, error) {
	simplify(c)
	put(c.doc, "$db", c.database)
	reply, err := s.ferret.call(c.doc)
	if err != nil || readCommands[c.name] {
		return reply, err
	}
	switch c.name {
	case "create", "drop", "renameCollection", "dropIndexes", "collMod", "insert", "update", "findAndModify", "findandmodify":
		d.forget(false)
	}
	if c.name == "drop" || c.name == "dropIndexes" || c.name == "renameCollection" {
		err = d.syncTTL(ctx, c)
	}
	return reply, err
}

func (s *server) dropDatabase(d *database, c *command) (*wirebson.Document, error) {
	d.files.Lock()
	defer d.files.Unlock()
	s.cursors.drop(c.database + ".")
	d.forget(true)
	put(c.doc, "$db", c.database)
	return s.ferret.call(c.doc)
}

// simplify rewrites Dapr's $expr on its time to live, which FerretDB does not know, in a filter that goes there.
func simplify(c *command) {
	for _, name := range []string{"filter", "query"} {
		if f, ok := c.doc.Get(name).(*wirebson.Document); ok {
			put(c.doc, name, simplified(f))
		}
	}
}

func simplified(filter *wirebson.Document) *wirebson.Document {
	out := wirebson.MakeDocument(filter.Len())
	var conditions []any
	for name, value := range filter.All() {
		if field := ttlExpression(value); name == "$expr" && field != "" {
			conditions = append(conditions, wirebson.MustDocument("$or", wirebson.MustArray(
				wirebson.MustDocument(field, wirebson.Null), wirebson.MustDocument(field, wirebson.MustDocument("$gte", time.Now())))))
			continue
		}
		if list, ok := value.(*wirebson.Array); ok && name == "$and" {
			for item := range list.Values() {
				if sub, ok := item.(*wirebson.Document); ok {
					item = simplified(sub)
				}
				conditions = append(conditions, item)
			}
			continue
		}
		_ = out.Add(name, value)
	}
	if len(conditions) > 0 {
		_ = out.Add("$and", wirebson.MustArray(conditions...))
	}
	return out
}

// hello describes a single server, or the only member of a replica set.
func (s *server) hello(sess *session, doc *wirebson.Document) *wirebson.Document {
	reply := wirebson.MakeDocument(16)
	if doc.Command() == "hello" {
		put(reply, "isWritablePrimary", s.replica.isPrimary())
	} else {
		put(reply, "ismaster", s.replica.isPrimary())
	}
	put(reply, "helloOk", true)
	put(reply, "maxBsonObjectSize", int32(16<<20))
	put(reply, "maxMessageSizeBytes", int32(wire.MaxMsgLen))
	put(reply, "maxWriteBatchSize", int32(100_000))
	put(reply, "localTime", time.Now().UTC())
	if s.replica == nil {
		put(reply, "logicalSessionTimeoutMinutes", int32(30))
	} else {
		s.replica.describe(reply)
	}
	put(reply, "connectionId", sess.id)
	put(reply, "minWireVersion", int32(0))
	put(reply, "maxWireVersion", int32(21)) // MongoDB 7.0
	put(reply, "readOnly", false)
	name, _ := doc.Get("saslSupportedMechs").(string)
	if database, user, ok := strings.Cut(name, "."); ok && s.users.find(database, user) != nil {
		put(reply, "saslSupportedMechs", wirebson.MustArray("SCRAM-SHA-1", "SCRAM-SHA-256"))
	}
	if start, ok := doc.Get("speculativeAuthenticate").(*wirebson.Document); ok && start.Get("saslStart") != nil {
		database, _ := start.Get("db").(string)
		// One that fails is left out: the client then logs in by itself, and is told why.
		if l, first, err := s.users.saslStart(start, database); err == nil {
			sess.login = l
			first.Remove("ok")
			put(reply, "speculativeAuthenticate", first)
		}
	}
	put(reply, "ok", float64(1))
	return reply
}

func (s *server) saslContinue(sess *session, doc *wirebson.Document) (*wirebson.Document, error) {
	if sess.login == nil {
		return nil, failure{17, "No SASL session state found"}
	}
	reply, a, err := sess.login.step(s.users, doc)
	if err != nil {
		sess.login = nil
		return nil, err
	}
	if a != nil {
		sess.account = a
	}
	if reply.Get("done") == any(true) {
		sess.login = nil
	}
	return reply, nil
}

func (sess *session) status() *wirebson.Document {
	who, roles := wirebson.MakeArray(1), wirebson.MakeArray(1)
	if a := sess.account; a != nil {
		_ = who.Add(wirebson.MustDocument("user", a.name, "db", a.database))
		roles = a.roleDocuments()
	}
	return wirebson.MustDocument("authInfo", wirebson.MustDocument("authenticatedUsers", who, "authenticatedUserRoles", roles), "ok", float64(1))
}

// ownDatabases leaves in an answer to listDatabases what the user may see.
func (s *server) ownDatabases(sess *session, reply *wirebson.Document) {
	list, isList := reply.Get("databases").(*wirebson.Array)
	if s.users == nil || sess.account.root() || !isList {
		return
	}
	own := wirebson.MakeArray(1)
	for item := range list.Values() {
		if doc, ok := item.(*wirebson.Document); ok && doc.Get("name") == any(sess.account.database) {
			_ = own.Add(doc)
		}
	}
	put(reply, "databases", own)
	reply.Remove("totalSize")
	reply.Remove("totalSizeMb")
}
