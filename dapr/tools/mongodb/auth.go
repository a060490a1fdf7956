package main

import (
	"crypto/md5" //nolint:gosec // SCRAM-SHA-1 of MongoDB is defined over an MD5 digest
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/FerretDB/wire/wirebson"
	"github.com/xdg-go/scram"
)

// iterations of SCRAM-SHA-256 and SCRAM-SHA-1: MongoDB's defaults.
const (
	iterations256 = 15_000
	iterations1   = 10_000
)

// account is one entry of the --users file. The password is kept only as the keys that SCRAM derives from it.
type account struct {
	name, database string
	roles          []string
	keys           map[string]scram.StoredCredentials // by mechanism
}

// users of the server; nil when it asks for none.
type users struct {
	path string
	mu   sync.RWMutex
	all  map[string]*account // by "database.user"
}

// entry is one user in the --users file, which is where the passwords themselves are kept.
type entry struct {
	User     string   `json:"user"`
	Password string   `json:"password"`
	Database string   `json:"database"`
	Roles    []string `json:"roles,omitempty"`
}

var knownRoles = []string{"read", "readWrite", "dbAdmin", "dbOwner", "root"}

// loadUsers reads JSON [{"user","password","database","roles"?}].
func loadUsers(path string) (*users, error) {
	entries, err := readEntries(path)
	if err != nil {
		return nil, err
	}
	u := &users{path: path, all: map[string]*account{}}
	for i, e := range entries {
		if e.User == "" || e.Password == "" || e.Database == "" {
			return nil, fmt.Errorf("--users %s: entry %d lacks user, password or database", path, i)
		}
		for _, role := range e.Roles {
			if !slices.Contains(knownRoles, role) {
				return nil, fmt.Errorf("--users %s: %s has the role %q; known are %s", path, e.User, role, strings.Join(knownRoles, ", "))
			}
		}
		if u.all[e.Database+"."+e.User], err = newAccount(e); err != nil {
			return nil, fmt.Errorf("--users %s: the password of %s: %w", path, e.User, err)
		}
	}
	return u, nil
}

func readEntries(path string) ([]entry, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--users: %w", err)
	}
	var entries []entry
	if err := json.Unmarshal(text, &entries); err != nil {
		return nil, fmt.Errorf("--users %s must be a JSON array of {user, password, database}: %w", path, err)
	}
	return entries, nil
}

func newAccount(e entry) (*account, error) {
	a := &account{name: e.User, database: e.Database, roles: e.Roles, keys: map[string]scram.StoredCredentials{}}
	sha256, err := scram.SHA256.NewClient(e.User, e.Password, "")
	if err != nil {
		return nil, err
	}
	a.keys["SCRAM-SHA-256"] = sha256.GetStoredCredentials(scram.KeyFactors{Salt: salt(28), Iters: iterations256})
	digest := md5.Sum([]byte(e.User + ":mongo:" + e.Password)) //nolint:gosec // see the import
	sha1, err := scram.SHA1.NewClientUnprepped(e.User, hex.EncodeToString(digest[:]), "")
	if err != nil {
		return nil, err
	}
	a.keys["SCRAM-SHA-1"] = sha1.GetStoredCredentials(scram.KeyFactors{Salt: salt(16), Iters: iterations1})
	return a, nil
}

// find returns the account of a user as it is now; nil where there is none, or no users at all.
func (u *users) find(database, name string) *account {
	if u == nil {
		return nil
	}
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.all[database+"."+name]
}

func salt(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return string(b)
}

func (a *account) root() bool { return slices.Contains(a.roles, "root") }

func (a *account) writes() bool {
	return len(a.roles) == 0 || slices.ContainsFunc(a.roles, func(r string) bool { return r != "read" })
}

// login is a SASL conversation under way on one connection.
type login struct {
	database  string
	scram     *scram.ServerConversation
	skipEmpty bool
	last      bool // the client has yet to send the empty message that ends it
}

var errLogin = failure{18, "Authentication failed."}

// saslStart begins a conversation; doc is the command, or speculativeAuthenticate of hello.
func (u *users) saslStart(doc *wirebson.Document, database string) (*login, *wirebson.Document, error) {
	mechanism, _ := doc.Get("mechanism").(string)
	if u == nil {
		return nil, nil, errLogin
	}
	var method scram.HashGeneratorFcn
	switch mechanism {
	case "SCRAM-SHA-256":
		method = scram.SHA256
	case "SCRAM-SHA-1":
		method = scram.SHA1
	default:
		return nil, nil, failure{334, fmt.Sprintf("Unsupported mechanism %q. Use SCRAM-SHA-256 or SCRAM-SHA-1.", mechanism)}
	}
	server, err := method.NewServer(func(name string) (scram.StoredCredentials, error) {
		a := u.find(database, name)
		if a == nil {
			return scram.StoredCredentials{}, errors.New("no such user")
		}
		return a.keys[mechanism], nil
	})
	if err != nil {
		return nil, nil, err
	}
	l := &login{database: database, scram: server.NewConversation()}
	if options, ok := doc.Get("options").(*wirebson.Document); ok {
		l.skipEmpty = truthy(options.Get("skipEmptyExchange")) && options.Get("skipEmptyExchange") != nil
	}
	reply, _, err := l.step(u, doc)
	return l, reply, err
}

// step answers one message of the client; the account is set by the message that proves its password.
func (l *login) step(u *users, doc *wirebson.Document) (*wirebson.Document, *account, error) {
	payload, ok := doc.Get("payload").(wirebson.Binary)
	if !ok {
		text, isText := doc.Get("payload").(string)
		if !isText {
			return nil, nil, failure{2, "saslStart and saslContinue need a payload"}
		}
		payload.B = []byte(text)
	}
	if l.last {
		return saslReply("", true), nil, nil
	}
	text, err := l.scram.Step(string(payload.B))
	if err != nil {
		return nil, nil, errLogin
	}
	if !l.scram.Done() {
		return saslReply(text, false), nil, nil
	}
	a := u.find(l.database, l.scram.Username())
	if !l.scram.Valid() || a == nil {
		return nil, nil, errLogin
	}
	l.last = true
	return saslReply(text, l.skipEmpty), a, nil
}

func saslReply(payload string, done bool) *wirebson.Document {
	return wirebson.MustDocument("conversationId", int32(1), "done", done,
		"payload", wirebson.Binary{B: []byte(payload)}, "ok", float64(1))
}

// open commands need no login.
var openCommands = map[string]bool{
	"hello": true, "isMaster": true, "ismaster": true, "ping": true, "buildInfo": true, "buildinfo": true, "saslStart": true,
	"saslContinue": true, "logout": true, "endSessions": true, "connectionStatus": true,
}

// readCommands change nothing: allowed to the role "read", and no reason to hold up writers.
var readCommands = map[string]bool{
	"find": true, "count": true, "aggregate": true, "distinct": true, "getMore": true, "killCursors": true, "explain": true,
	"listCollections": true, "listIndexes": true, "listDatabases": true, "dbStats": true, "dbstats": true, "collStats": true,
	"collstats": true, "dataSize": true, "validate": true,
}

// administrative commands are root's alone.
var administrative = map[string]bool{
	"createUser": true, "updateUser": true, "usersInfo": true, "replSetInitiate": true, "replSetReconfig": true,
	"replSetGetConfig": true, "replSetGetStatus": true,
}

// authorize tells whether the connection's user may run a command on a database.
func (u *users) authorize(a *account, command, database string, doc *wirebson.Document) error {
	if u == nil || openCommands[command] {
		return nil
	}
	if a == nil {
		return failure{13, fmt.Sprintf("command %s requires authentication", command)}
	}
	if a.root() {
		return nil
	}
	denied := failure{13, fmt.Sprintf("not authorized on %s to execute command %s", database, command)}
	if administrative[command] {
		return denied
	}
	if command == "renameCollection" { // names its collections in full
		own := func(name string) bool {
			ns, _ := doc.Get(name).(string)
			return strings.HasPrefix(ns, a.database+".")
		}
		if !own("renameCollection") || !own("to") {
			return denied
		}
	} else if database != a.database && (database != "admin" || command != "listDatabases") {
		return denied
	}
	if !readCommands[command] && !a.writes() {
		return denied
	}
	return nil
}
