package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/FerretDB/wire/wirebson"
)

// replicaSet is one of a single member, this server: enough for clients that look for a replica set. Nothing is replicated.
// It is nil where no --replSet is given.
type replicaSet struct {
	name, path string
	began      time.Time
	mu         sync.RWMutex
	config     *setConfig // nil until replSetInitiate
}

// setConfig is what is kept of the configuration.
type setConfig struct {
	ID       string `json:"_id"`
	Version  int32  `json:"version"`
	MemberID int32  `json:"memberId"`
	Host     string `json:"host"`
	SetID    string `json:"replicaSetId"`
}

// openReplicaSet reads what an earlier run was told.
func openReplicaSet(dir, name string) (*replicaSet, error) {
	r := &replicaSet{name: name, path: filepath.Join(dir, "replica-set.json"), began: time.Now()}
	text, err := os.ReadFile(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &r.config); err != nil {
		return nil, fmt.Errorf("%s: %w", r.path, err)
	}
	if r.config.ID != name {
		return nil, fmt.Errorf("--replSet %s: the data in %s belong to the replica set %s", name, dir, r.config.ID)
	}
	return r, nil
}

func (r *replicaSet) current() *setConfig {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.config
}

// isPrimary: as soon as the set is initiated, there being nobody else to elect.
func (r *replicaSet) isPrimary() bool { return r == nil || r.current() != nil }

// describe adds to hello what makes drivers see a replica set. It promises no sessions, and so no retryable writes and no
// transactions, as there are none.
func (r *replicaSet) describe(reply *wirebson.Document) {
	c := r.current()
	put(reply, "secondary", false)
	if c == nil {
		put(reply, "isreplicaset", true)
		put(reply, "info", "Does not have a valid replica set config")
		return
	}
	put(reply, "setName", c.ID)
	put(reply, "setVersion", c.Version)
	put(reply, "hosts", wirebson.MustArray(c.Host))
	put(reply, "primary", c.Host)
	put(reply, "me", c.Host)
	put(reply, "electionId", objectID(c.SetID))
}

// run answers the commands of a replica set.
func (r *replicaSet) run(c *command) (*wirebson.Document, error) {
	if r == nil {
		return nil, failure{76, "This node was not started with replication enabled"}
	}
	ok := wirebson.MustDocument("ok", float64(1))
	if c.name == "replSetInitiate" || c.name == "replSetReconfig" {
		return ok, r.configure(c)
	}
	config := r.current()
	if config == nil {
		return nil, failure{94, "no replset config has been received"}
	}
	if c.name == "replSetGetConfig" {
		return wirebson.MustDocument("config", config.document(), "ok", float64(1)), nil
	}
	member := wirebson.MustDocument("_id", config.MemberID, "name", config.Host, "health", float64(1), "state", int32(1),
		"stateStr", "PRIMARY", "uptime", int32(time.Since(r.began).Seconds()), "configVersion", config.Version, "self", true)
	return wirebson.MustDocument("set", config.ID, "date", time.Now().UTC(), "myState", int32(1), "term", int64(1),
		"members", wirebson.MustArray(member), "ok", float64(1)), nil
}

// configure takes the configuration of replSetInitiate, once, or a newer one of replSetReconfig.
func (r *replicaSet) configure(c *command) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := c.name == "replSetInitiate"
	if first && r.config != nil {
		return failure{23, "already initialized"}
	}
	if !first && r.config == nil {
		return failure{94, "Node not yet initialized; use the replSetInitiate command"}
	}
	next, err := r.read(c)
	if err != nil {
		return err
	}
	if first {
		next.Version, next.SetID = 1, hex.EncodeToString([]byte(salt(12)))
	} else {
		if next.Version <= r.config.Version {
			return failure{103, fmt.Sprintf("New replica set configuration version must be greater than old, but %d is not greater than %d", next.Version, r.config.Version)}
		}
		next.SetID = r.config.SetID
	}
	// As of a mongod: a member that does not find itself by the name that it is given would be found by nobody.
	conn, err := net.DialTimeout("tcp", next.Host, 2*time.Second)
	if err != nil {
		return failure{74, fmt.Sprintf("No host described in new configuration for replica set %s maps to this node: %s", r.name, err)}
	}
	_ = conn.Close()
	if err := replaceFile(r.path, next); err != nil {
		return err
	}
	r.config = next
	return nil
}

// read takes from a configuration what matters here, and refuses what would need other members.
func (r *replicaSet) read(c *command) (*setConfig, error) {
	doc, _ := c.doc.Get(c.name).(*wirebson.Document)
	if doc == nil {
		return nil, failure{93, c.name + " needs a configuration: {_id, members: [{_id, host}]}"}
	}
	if id, _ := doc.Get("_id").(string); id != r.name {
		return nil, failure{93, fmt.Sprintf("The replica set is called %q in the configuration, and %q by --replSet", id, r.name)}
	}
	members, _ := doc.Get("members").(*wirebson.Array)
	if members == nil || members.Len() != 1 {
		return nil, notSupported("a replica set of other than one member")
	}
	member, _ := members.Get(0).(*wirebson.Document)
	if member == nil {
		return nil, failure{93, "A member must be an object"}
	}
	host, _ := member.Get("host").(string)
	if _, _, err := net.SplitHostPort(host); err != nil {
		return nil, failure{93, fmt.Sprintf("The member's host must be HOST:PORT: %s", err)}
	}
	return &setConfig{ID: r.name, Host: host, MemberID: int32(whole(member.Get("_id"))), Version: int32(whole(doc.Get("version")))}, nil
}

func (c *setConfig) document() *wirebson.Document {
	member := wirebson.MustDocument("_id", c.MemberID, "host", c.Host, "arbiterOnly", false, "buildIndexes", true, "hidden", false,
		"priority", float64(1), "tags", wirebson.MustDocument(), "secondaryDelaySecs", int64(0), "votes", int32(1))
	return wirebson.MustDocument("_id", c.ID, "version", c.Version, "term", int64(1), "members", wirebson.MustArray(member),
		"protocolVersion", int64(1), "writeConcernMajorityJournalDefault", true,
		"settings", wirebson.MustDocument("replicaSetId", objectID(c.SetID)))
}

func objectID(text string) wirebson.ObjectID {
	var id wirebson.ObjectID
	_, _ = hex.Decode(id[:], []byte(text))
	return id
}

// whole reads a number that a client may send as any of BSON's kinds; 0 for anything else.
func whole(value any) int64 {
	if f, ok := value.(float64); ok {
		return int64(f)
	}
	n, _ := integer(value)
	return n
}
