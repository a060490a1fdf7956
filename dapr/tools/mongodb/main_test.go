package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"go.mongodb.org/mongo-driver/mongo/readpref"

	"github.com/FerretDB/wire/wirebson"
)

// asProgram makes the test binary be the program itself, for the tests that end it by force.
const asProgram = "MONGODB_STANDIN_ARGS"

func TestMain(m *testing.M) {
	if args := os.Getenv(asProgram); args != "" {
		os.Args = append(os.Args[:1], strings.Split(args, "\n")...)
		main()
		return
	}
	os.Exit(m.Run())
}

// serveHere starts a server in this process.
func serveHere(t testing.TB, usersFile string) (*server, string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := start(ctx, t.TempDir(), usersFile, "")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.serve(l) }()
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		s.stop()
	})
	return s, l.Addr().String()
}

func connect(t testing.TB, address, login string) *mongo.Client {
	t.Helper()
	c, err := mongo.Connect(context.Background(), options.Client().ApplyURI("mongodb://"+login+address+"/shop").SetServerSelectionTimeout(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Disconnect(context.Background()) })
	return c
}

func shop(t testing.TB) (*server, *mongo.Collection) {
	s, address := serveHere(t, "")
	return s, connect(t, address, "").Database("shop").Collection("state")
}

func no(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t testing.TB, got, want any) {
	t.Helper()
	if g, w := fmt.Sprintf("%#v", got), fmt.Sprintf("%#v", want); g != w {
		t.Fatalf("got  %s\nwant %s", g, w)
	}
}

func code(err error) int32 {
	var c mongo.CommandError
	var w mongo.WriteException
	switch {
	case errors.As(err, &c):
		return c.Code
	case errors.As(err, &w) && len(w.WriteErrors) > 0:
		return int32(w.WriteErrors[0].Code)
	}
	return 0
}

// What Dapr's state.mongodb (components-contrib v1.18.3) sends.

func daprSet(c *mongo.Collection, key string, value any, etag, matching string, ttlMillis int64) (*mongo.UpdateResult, error) {
	filter := bson.M{"_id": key}
	if matching != "" {
		filter["_etag"] = matching
	}
	var expires any
	if ttlMillis != 0 {
		expires = bson.D{{Key: "$add", Value: bson.A{"$$NOW", ttlMillis}}}
	}
	update := mongo.Pipeline{
		{{Key: "$set", Value: bson.D{{Key: "_id", Value: key}, {Key: "value", Value: value}, {Key: "_etag", Value: etag}}}},
		{{Key: "$addFields", Value: bson.D{{Key: "_ttl", Value: expires}}}},
	}
	return c.UpdateOne(context.Background(), filter, update, options.Update().SetUpsert(true))
}

func daprAlive() bson.D {
	return bson.D{{Key: "$expr", Value: bson.D{{Key: "$or", Value: bson.A{
		bson.D{{Key: "$eq", Value: bson.A{bson.D{{Key: "$ifNull", Value: bson.A{"$_ttl", primitive.Null{}}}}, primitive.Null{}}}},
		bson.D{{Key: "$gte", Value: bson.A{"$_ttl", "$$NOW"}}},
	}}}}}
}

func daprGet(c *mongo.Collection, condition any) ([]bson.M, error) {
	filter := bson.D{{Key: "$and", Value: bson.A{bson.D{{Key: "_id", Value: condition}}, daprAlive()}}}
	cursor, err := c.Find(context.Background(), filter)
	if err != nil {
		return nil, err
	}
	var out []bson.M
	return out, cursor.All(context.Background(), &out)
}

func TestWhatDaprSends(t *testing.T) {
	_, c := shop(t)
	ctx := context.Background()
	no(t, c.Database().Client().Ping(ctx, nil))
	for range 2 { // every sidecar makes the index at its start
		_, err := c.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.M{"_ttl": 1}, Options: options.Index().SetExpireAfterSeconds(0)})
		no(t, err)
	}
	r, err := daprSet(c, "app||a", "1", "e1", "", 0)
	no(t, err)
	equal(t, r.UpsertedID, any("app||a"))
	r, err = daprSet(c, "app||a", "2", "e2", "e1", 0)
	no(t, err)
	equal(t, []int64{r.MatchedCount, r.ModifiedCount, r.UpsertedCount}, []int64{1, 1, 0})

	_, err = daprSet(c, "app||a", "3", "e3", "e1", 0)
	if !mongo.IsDuplicateKeyError(err) {
		t.Fatalf("a stale etag gives %v", err)
	}
	got, err := daprGet(c, bson.M{"$eq": "app||a"})
	no(t, err)
	equal(t, got, []bson.M{{"_id": "app||a", "value": "2", "_etag": "e2", "_ttl": nil}})

	_, err = daprSet(c, "app||gone", "x", "e", "", -1)
	no(t, err)
	_, err = daprSet(c, "app||soon", "x", "e", "", 60_000)
	no(t, err)
	got, err = daprGet(c, bson.M{"$in": bson.A{"app||soon", "app||gone", "app||none", "app||a"}})
	no(t, err)
	equal(t, len(got), 2)

	d, err := c.DeleteOne(ctx, bson.M{"_id": "app||a", "_etag": "e1"})
	no(t, err)
	equal(t, d.DeletedCount, int64(0))
	d, err = c.DeleteOne(ctx, bson.M{"_id": "app||a", "_etag": "e2"})
	no(t, err)
	equal(t, d.DeletedCount, int64(1))

	like := bson.D{{Key: "$and", Value: bson.A{bson.D{{Key: "_id", Value: bson.M{"$regex": "^app\\|\\|s.*$"}}}, daprAlive(), bson.D{{Key: "_id", Value: bson.M{"$gt": "app||a"}}}}}}
	n, err := c.CountDocuments(ctx, like)
	no(t, err)
	equal(t, n, int64(1))
}

// A JSON object that Dapr saves is merged by a pipeline's $set, and its "$…" strings are field paths: as in MongoDB.
func TestPipelineSetMergesObjects(t *testing.T) {
	_, c := shop(t)
	_, err := daprSet(c, "k", bson.D{{Key: "a", Value: int32(1)}, {Key: "o", Value: bson.D{{Key: "x", Value: int32(1)}}}}, "e1", "", 0)
	no(t, err)
	_, err = daprSet(c, "k", bson.D{{Key: "b", Value: "$_etag"}, {Key: "o", Value: bson.D{{Key: "y", Value: bson.A{"$none"}}}}}, "e2", "", 0)
	no(t, err)
	var doc struct{ Value bson.M }
	no(t, c.FindOne(context.Background(), bson.M{"_id": "k"}).Decode(&doc))
	equal(t, doc.Value, bson.M{"a": int32(1), "b": "e1", "o": bson.M{"x": int32(1), "y": bson.A{nil}}})
}

func TestOneOfSixteenWritersWins(t *testing.T) {
	_, c := shop(t)
	const writers, rounds = 16, 50
	_, err := daprSet(c, "k", "0", "r0", "", 0)
	no(t, err)
	for round := range rounds {
		// Even rounds replace by ETag, odd ones insert with an ETag that no document has, as Dapr's first-write does.
		key, matching := "k", fmt.Sprintf("r%d", round)
		if round%2 == 1 {
			key, matching = fmt.Sprintf("new%d", round), "none"
		}
		var won, lost atomic.Int32
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				_, err := daprSet(c, key, fmt.Sprint(w), fmt.Sprintf("%d-%d", round, w), matching, 0)
				switch {
				case err == nil:
					won.Add(1)
				case mongo.IsDuplicateKeyError(err):
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		equal(t, []int32{won.Load(), lost.Load()}, []int32{1, writers - 1})
		_, err := daprSet(c, "k", "0", fmt.Sprintf("r%d", round+1), "", 0)
		no(t, err)
	}
}

// The writes that FerretDB does, which reads first and writes then, are no less atomic.
func TestForwardedUpdatesDoNotRace(t *testing.T) {
	_, c := shop(t)
	ctx := context.Background()
	_, err := c.InsertOne(ctx, bson.M{"_id": "list", "n": int32(0)})
	no(t, err)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for range 10 {
				if _, err := c.UpdateOne(ctx, bson.M{"_id": "list"}, bson.M{"$push": bson.M{"all": w}}); err != nil {
					t.Error(err)
				}
				if _, err := c.UpdateOne(ctx, bson.M{"_id": "list"}, bson.M{"$inc": bson.M{"n": 1}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var doc struct {
		N   int
		All []int
	}
	no(t, c.FindOne(ctx, bson.M{"_id": "list"}).Decode(&doc))
	equal(t, []int{doc.N, len(doc.All)}, []int{160, 160})
}

// program starts the server as a process of its own.
func program(t *testing.T, dir string, args ...string) (*exec.Cmd, string) {
	t.Helper()
	p := exec.Command(os.Args[0])
	args = append([]string{"--port", "0", "--dbpath", dir}, args...)
	// The race detector would sleep for a second at the end.
	p.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", asProgram+"="+strings.Join(args, "\n"))
	p.Stderr = os.Stderr
	out, err := p.StdoutPipe()
	no(t, err)
	began := time.Now()
	no(t, p.Start())
	t.Cleanup(func() { _ = p.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	no(t, err)
	address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
	if took := time.Since(began); address == "" || took > 3*time.Second {
		t.Fatalf("started after %v, saying %q", took, line)
	}
	return p, address
}

func TestAcknowledgedWritesSurviveKill(t *testing.T) {
	dir := t.TempDir()
	acknowledged := 0
	for round := range 3 {
		p, address := program(t, dir)
		c := connect(t, address, "").Database("shop").Collection("state")
		var mu sync.Mutex
		var keys []string
		var wg sync.WaitGroup
		enough := make(chan struct{})
		for w := range 8 {
			wg.Go(func() {
				for i := 0; ; i++ {
					key := fmt.Sprintf("%d-%d-%d", round, w, i)
					if _, err := daprSet(c, key, "v", key, "", 0); err != nil {
						return // killed
					}
					mu.Lock()
					if keys = append(keys, key); len(keys) == 500 {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		<-enough
		no(t, p.Process.Kill())
		_ = p.Wait()
		wg.Wait()
		p, address = program(t, dir)
		c = connect(t, address, "").Database("shop").Collection("state")
		for _, key := range keys {
			if err := c.FindOne(context.Background(), bson.M{"_id": key}).Err(); err != nil {
				t.Fatalf("%s was acknowledged and is lost: %v", key, err)
			}
		}
		acknowledged += len(keys)
		soon, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		second := exec.CommandContext(soon, os.Args[0])
		second.Env = append(os.Environ(), asProgram+"=--port\n0\n--dbpath\n"+dir)
		if out, err := second.CombinedOutput(); err == nil || !strings.Contains(string(out), "in use by another") {
			t.Fatalf("a second one on the same data: %v, %s", err, out)
		}
		cancel()
		began := time.Now()
		no(t, p.Process.Signal(os.Interrupt))
		no(t, p.Wait())
		if took := time.Since(began); took > 2*time.Second {
			t.Fatalf("took %v to end", took)
		}
	}
	t.Logf("%d acknowledged writes, none lost", acknowledged)
}

func TestUsers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.json")
	no(t, os.WriteFile(file, []byte(`[{"user":"app","password":"p w","database":"shop"},{"user":"look","password":"l","database":"shop","roles":["read"]},
		{"user":"app","password":"other","database":"bank"}]`), 0o600))
	_, address := serveHere(t, file)
	ctx := context.Background()

	anyone := connect(t, address, "")
	no(t, anyone.Ping(ctx, readpref.Primary()))
	for _, command := range []bson.D{
		{{Key: "find", Value: "x"}}, {{Key: "listCollections", Value: 1}}, {{Key: "insert", Value: "x"}}, {{Key: "dropDatabase", Value: 1}},
		{{Key: "getMore", Value: int64(1)}, {Key: "collection", Value: "x"}}, {{Key: "serverStatus", Value: 1}},
	} {
		equal(t, code(anyone.Database("shop").RunCommand(ctx, command).Err()), int32(13))
	}
	for _, mechanism := range []string{"SCRAM-SHA-1", "SCRAM-SHA-256"} {
		try := func(user, password string) error {
			c, err := mongo.Connect(ctx, options.Client().ApplyURI("mongodb://"+address).SetAuth(options.Credential{
				AuthMechanism: mechanism, AuthSource: "shop", Username: user, Password: password}))
			no(t, err)
			defer func() { _ = c.Disconnect(ctx) }()
			_, err = c.Database("shop").Collection("x").InsertOne(ctx, bson.M{})
			return err
		}
		no(t, try("app", "p w"))
		for _, wrong := range [][2]string{{"app", "other"}, {"nobody", "p w"}} {
			if err := try(wrong[0], wrong[1]); err == nil || !strings.Contains(err.Error(), "AuthenticationFailed") {
				t.Fatalf("%v: %v", wrong, err)
			}
		}
	}
	app := connect(t, address, "app:p%20w@")
	_, err := app.Database("bank").Collection("x").InsertOne(ctx, bson.M{})
	equal(t, code(err), int32(13))
	equal(t, code(app.Database("admin").RunCommand(ctx, bson.D{{Key: "find", Value: "system.users"}}).Err()), int32(13))
	names, err := app.ListDatabaseNames(ctx, bson.M{})
	no(t, err)
	equal(t, names, []string{"shop"})
	for _, rename := range [][2]string{{"bank.x", "shop.stolen"}, {"shop.x", "bank.x"}} {
		for _, database := range []string{"admin", "shop"} {
			err := app.Database(database).RunCommand(ctx, bson.D{{Key: "renameCollection", Value: rename[0]}, {Key: "to", Value: rename[1]}}).Err()
			equal(t, code(err), int32(13))
		}
	}
	no(t, app.Database("admin").RunCommand(ctx, bson.D{{Key: "renameCollection", Value: "shop.x"}, {Key: "to", Value: "shop.y"}}).Err())
	look := connect(t, address, "look:l@").Database("shop").Collection("y")
	n, err := look.CountDocuments(ctx, bson.M{})
	no(t, err)
	equal(t, n, int64(2))
	_, err = look.DeleteMany(ctx, bson.M{})
	equal(t, code(err), int32(13))
}

// What the set-up of a MongoDB sends, to one that is started as a mongod is, is killed and comes back.
func TestReplicaSetOfOne(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "users.json")
	no(t, os.WriteFile(file, []byte(`[{"user":"root","password":"r","database":"admin","roles":["root"]}]`), 0o600))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	no(t, err)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	no(t, l.Close())
	begin := func() (p *exec.Cmd, address string, root *mongo.Database) {
		p, address = program(t, dir, "--users", file, "--port", port, "--replSet", "rs0", "--keyFile", "k", "--wiredTigerCacheSizeGB", "0.5")
		c, err := mongo.Connect(ctx, options.Client().ApplyURI("mongodb://root:r@"+address+"/?authSource=admin&directConnection=true"))
		no(t, err)
		t.Cleanup(func() { _ = c.Disconnect(ctx) })
		return p, address, c.Database("admin")
	}
	p, address, root := begin()
	command := func(name string, value any) int32 {
		return code(root.RunCommand(ctx, bson.D{{Key: name, Value: value}}).Err())
	}
	set := func(id string, version int, hosts ...string) bson.D {
		members := bson.A{}
		for i, host := range hosts {
			members = append(members, bson.D{{Key: "_id", Value: i}, {Key: "host", Value: host}})
		}
		return bson.D{{Key: "_id", Value: id}, {Key: "version", Value: version}, {Key: "members", Value: members}}
	}
	hello := func() bson.M {
		var reply bson.M
		no(t, root.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&reply))
		return reply
	}

	equal(t, command("replSetGetConfig", 1), int32(94))
	equal(t, command("replSetGetStatus", 1), int32(94))
	equal(t, command("replSetReconfig", set("rs0", 2, address)), int32(94))
	equal(t, command("createUser", "early"), int32(10107))
	equal(t, hello()["isWritablePrimary"], any(false))
	equal(t, command("replSetInitiate", set("other", 1, address)), int32(93))
	equal(t, command("replSetInitiate", set("rs0", 1, "no-port")), int32(93))
	equal(t, command("replSetInitiate", set("rs0", 1, address, "127.0.0.1:1")), int32(238))
	equal(t, command("replSetInitiate", set("rs0", 1, "127.0.0.1:1")), int32(74))
	equal(t, command("replSetInitiate", set("rs0", 1, address)), int32(0))
	equal(t, command("replSetInitiate", set("rs0", 1, address)), int32(23))
	equal(t, hello()["isWritablePrimary"], any(true))
	equal(t, command("replSetReconfig", set("rs0", 1, address)), int32(103))
	equal(t, command("replSetReconfig", set("rs0", 2, address)), int32(0))
	shop := root.Client().Database("shop")
	no(t, shop.RunCommand(ctx, bson.D{{Key: "createUser", Value: "app"}, {Key: "pwd", Value: "old"},
		{Key: "roles", Value: bson.A{bson.M{"role": "readWrite", "db": "shop"}}}}).Err())
	no(t, shop.RunCommand(ctx, bson.D{{Key: "updateUser", Value: "app"}, {Key: "pwd", Value: "new"}}).Err())

	no(t, p.Process.Kill())
	_ = p.Wait()
	_, address, root = begin()
	equal(t, command("replSetInitiate", set("rs0", 1, address)), int32(23))
	var reply struct {
		Config struct {
			ID      string `bson:"_id"`
			Version int
			Members []struct{ Host string }
		}
	}
	no(t, root.RunCommand(ctx, bson.D{{Key: "replSetGetConfig", Value: 1}}).Decode(&reply))
	equal(t, []any{reply.Config.ID, reply.Config.Version, reply.Config.Members[0].Host}, []any{"rs0", 2, address})
	equal(t, hello()["hosts"], any(primitive.A{address}))

	// A client that looks for the set finds its member, without the sessions that it does not have.
	app, err := mongo.Connect(ctx, options.Client().ApplyURI("mongodb://app:new@"+address+"/shop?replicaSet=rs0&w=majority"))
	no(t, err)
	defer func() { _ = app.Disconnect(ctx) }()
	no(t, app.Ping(ctx, readpref.Primary()))
	state := app.Database("shop").Collection("state")
	_, err = daprSet(state, "k", "v", "e", "", 0)
	no(t, err)
	session, err := app.StartSession()
	if err == nil {
		_, err = session.WithTransaction(ctx, func(ctx mongo.SessionContext) (any, error) { return state.InsertOne(ctx, bson.M{"_id": "half"}) })
		session.EndSession(ctx)
	}
	if err == nil || !strings.Contains(err.Error(), "does not support sessions") {
		t.Fatal(err)
	}
	_, err = app.Database("bank").Collection("x").InsertOne(ctx, bson.M{})
	equal(t, code(err), int32(13))
	stranger, err := mongo.Connect(ctx, options.Client().ApplyURI("mongodb://"+address+"/?replicaSet=other").SetServerSelectionTimeout(300*time.Millisecond))
	no(t, err)
	defer func() { _ = stranger.Disconnect(ctx) }()
	if stranger.Ping(ctx, nil) == nil {
		t.Fatal("a client of another replica set finds itself at home")
	}

	if _, err := openReplicaSet(dir, "rs1"); err == nil || !strings.Contains(err.Error(), "rs0") {
		t.Fatal(err)
	}
}

func TestUserCommands(t *testing.T) {
	ctx := context.Background()
	file := filepath.Join(t.TempDir(), "users.json")
	no(t, os.WriteFile(file, []byte(`[{"user":"root","password":"r","database":"admin","roles":["root"]},{"user":"old","password":"o","database":"shop"}]`), 0o600))
	_, address := serveHere(t, file)
	login := func(user, password string) (*mongo.Database, error) {
		source := map[bool]string{true: "admin", false: "shop"}[user == "root"]
		c, err := mongo.Connect(ctx, options.Client().ApplyURI("mongodb://"+address).SetAuth(options.Credential{
			AuthMechanism: "SCRAM-SHA-256", AuthSource: source, Username: user, Password: password}))
		no(t, err)
		t.Cleanup(func() { _ = c.Disconnect(ctx) })
		return c.Database("shop"), c.Ping(ctx, nil)
	}
	role := func(name, db string) bson.A { return bson.A{bson.M{"role": name, "db": db}} }
	run := func(db *mongo.Database, command, user string, more ...bson.E) int32 {
		return code(db.RunCommand(ctx, append(bson.D{{Key: command, Value: user}}, more...)).Err())
	}
	pwd := func(value string) bson.E { return bson.E{Key: "pwd", Value: value} }
	roles := func(value any) bson.E { return bson.E{Key: "roles", Value: value} }
	shop, err := login("root", "r")
	no(t, err)

	equal(t, run(shop, "updateUser", "app", pwd("p")), int32(11))
	equal(t, run(shop, "createUser", "app", pwd("p"), roles(role("readWrite", "shop"))), int32(0))
	equal(t, run(shop, "createUser", "app", pwd("p"), roles(role("readWrite", "shop"))), int32(51003))
	for _, refused := range []struct {
		roles any
		code  int32
	}{{bson.A{}, 238}, {role("readWrite", "bank"), 238}, {bson.A{"root"}, 238}, {role("sorcerer", "shop"), 31}, {bson.A{1}, 31}} {
		equal(t, run(shop, "createUser", "x", pwd("p"), roles(refused.roles)), refused.code)
	}
	equal(t, run(shop, "createUser", "x", roles(bson.A{"read"})), int32(238))
	equal(t, run(shop, "createUser", "", pwd("p"), roles(bson.A{"read"})), int32(2))

	app, err := login("app", "p")
	no(t, err)
	_, err = app.Collection("x").InsertOne(ctx, bson.M{})
	no(t, err)
	_, err = app.Client().Database("bank").Collection("x").InsertOne(ctx, bson.M{})
	equal(t, code(err), int32(13))
	for _, command := range []string{"createUser", "updateUser", "usersInfo", "replSetGetConfig", "replSetInitiate"} {
		equal(t, run(app, command, "app", pwd("p"), roles(bson.A{"dbOwner"})), int32(13))
	}
	// What changes holds for who is logged in as well.
	equal(t, run(shop, "updateUser", "app", pwd("q"), roles(bson.A{"read"})), int32(0))
	_, err = app.Collection("x").InsertOne(ctx, bson.M{})
	equal(t, code(err), int32(13))
	if _, err := login("app", "p"); err == nil {
		t.Fatal("the old password still works")
	}
	if _, err := login("app", "q"); err != nil {
		t.Fatal(err)
	}

	names := func(wanted any) (names []string) {
		var reply struct {
			Users []struct {
				ID    string `bson:"_id"`
				Roles []struct{ Role, DB string }
			}
		}
		no(t, shop.RunCommand(ctx, bson.D{{Key: "usersInfo", Value: wanted}}).Decode(&reply))
		for _, u := range reply.Users {
			names = append(names, u.ID+" "+u.Roles[0].Role+"@"+u.Roles[0].DB)
		}
		return names
	}
	equal(t, names("app"), []string{"shop.app read@shop"})
	equal(t, names(bson.M{"user": "root", "db": "admin"}), []string{"admin.root root@admin"})
	equal(t, names(bson.A{"app", "nobody"}), []string{"shop.app read@shop"})
	equal(t, names(1), []string{"shop.app read@shop", "shop.old dbOwner@shop"})
	equal(t, names("nobody"), []string(nil))

	// Nothing but the file is needed to know them again.
	again, err := loadUsers(file)
	no(t, err)
	equal(t, again.find("shop", "app").roles, []string{"read"})
	stat, err := os.Stat(file)
	no(t, err)
	equal(t, stat.Mode().Perm(), os.FileMode(0o600))

	_, open := serveHere(t, "")
	db := connect(t, open, "").Database("shop")
	equal(t, run(db, "createUser", "app", pwd("p"), roles(bson.A{"read"})), int32(238))
	equal(t, code(db.RunCommand(ctx, bson.D{{Key: "replSetGetConfig", Value: 1}}).Err()), int32(76))
}

func TestTransactionsAreRefused(t *testing.T) {
	_, c := shop(t)
	ctx := context.Background()
	session, err := c.Database().Client().StartSession()
	no(t, err)
	defer session.EndSession(ctx)
	_, err = session.WithTransaction(ctx, func(ctx mongo.SessionContext) (any, error) {
		return c.InsertOne(ctx, bson.M{"_id": "half"})
	})
	equal(t, code(err), int32(20))
	n, err := c.CountDocuments(ctx, bson.M{})
	no(t, err)
	equal(t, n, int64(0))
}

func TestExpiredDocumentsAreDeleted(t *testing.T) {
	s, c := shop(t)
	ctx := context.Background()
	_, err := c.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.M{"_ttl": 1}, Options: options.Index().SetExpireAfterSeconds(10)})
	no(t, err)
	now := time.Now()
	docs := []any{bson.M{"_id": "late", "_ttl": now.Add(-5 * time.Second)}, bson.M{"_id": "null", "_ttl": nil}, bson.M{"_id": "text", "_ttl": "1"}, bson.M{"_id": "number", "_ttl": 1}}
	for i := range 2 * sweepChunk {
		docs = append(docs, bson.M{"_id": fmt.Sprint(i), "_ttl": now.Add(-20 * time.Second)})
	}
	_, err = c.InsertMany(ctx, docs)
	no(t, err)
	no(t, s.sweep(ctx, now))
	n, err := c.EstimatedDocumentCount(ctx)
	no(t, err)
	equal(t, n, int64(4))
	no(t, s.sweep(ctx, now.Add(6*time.Second)))
	n, err = c.CountDocuments(ctx, bson.M{"_id": "late"})
	no(t, err)
	equal(t, n, int64(0))

	// A collection made anew under the name has no expiry.
	no(t, c.Drop(ctx))
	_, err = c.InsertOne(ctx, bson.M{"_id": "old", "_ttl": now.Add(-time.Hour)})
	no(t, err)
	no(t, s.sweep(ctx, now))
	no(t, c.FindOne(ctx, bson.M{"_id": "old"}).Err())
}

func everyType() bson.D {
	return bson.D{
		{Key: "_id", Value: "a\"<&>\\ 한글 \u2028 \x01"}, {Key: "double", Value: 1.5}, {Key: "whole", Value: 2.0}, {Key: "tiny", Value: 5e-324},
		{Key: "int", Value: int32(-7)}, {Key: "long", Value: int64(1) << 60}, {Key: "yes", Value: true}, {Key: "null", Value: nil},
		{Key: "date", Value: primitive.DateTime(-62135596800000)}, {Key: "id", Value: primitive.NewObjectID()},
		{Key: "binary", Value: primitive.Binary{Subtype: 4, Data: []byte("0123456789abcdef")}}, {Key: "empty", Value: primitive.Binary{Data: []byte{}}},
		{Key: "regex", Value: primitive.Regex{Pattern: "^a\"b", Options: "i"}}, {Key: "stamp", Value: primitive.Timestamp{T: 1 << 31, I: 3}},
		{Key: "nested", Value: bson.D{{Key: "z", Value: bson.A{}}, {Key: "a", Value: bson.A{bson.D{}, bson.A{nil, int32(1)}, "x"}}, {Key: "", Value: "empty name"}}},
	}
}

func TestFerretDBReadsWhatWeWrite(t *testing.T) {
	s, c := shop(t)
	ctx := context.Background()
	want := everyType()
	_, err := c.InsertOne(ctx, want)
	no(t, err)
	raw, err := bson.Marshal(want)
	no(t, err)
	ask := wirebson.MustDocument("find", "state", "sort", wirebson.MustDocument("int", int32(1)), "$db", "shop")
	for _, read := range []func() *wirebson.Document{
		func() *wirebson.Document { // by FerretDB
			reply, err := s.ferret.call(ask)
			no(t, err)
			return reply
		},
		func() *wirebson.Document { // by us
			reply, err := s.find(ctx, &command{"find", "shop", wirebson.MustDocument("find", "state", "$db", "shop")})
			no(t, err)
			b, err := reply.Encode()
			no(t, err)
			reply, err = b.DecodeDeep()
			no(t, err)
			return reply
		},
	} {
		reply := read()
		if !ok(reply) {
			t.Fatal(reply.Get("errmsg"))
		}
		first := reply.Get("cursor").(*wirebson.Document).Get("firstBatch").(*wirebson.Array).Get(0).(*wirebson.Document)
		b, err := first.Encode()
		no(t, err)
		equal(t, []byte(b), raw)
	}
	// The other way: FerretDB writes, we read; and it must see the _id as the same one.
	doc, err := wirebson.RawDocument(raw).DecodeDeep()
	no(t, err)
	insert := wirebson.MustDocument("insert", "state", "documents", wirebson.MustArray(doc), "$db", "shop")
	reply, err := s.ferret.call(insert)
	no(t, err)
	if reply.Get("writeErrors") == nil {
		t.Fatal("FerretDB does not find the _id that we wrote")
	}
	_, err = c.DeleteOne(ctx, bson.M{"_id": want[0].Value})
	no(t, err)
	// FerretDB itself refuses an empty field name.
	doc.Remove("nested")
	reply, err = s.ferret.call(insert)
	no(t, err)
	if reply.Get("writeErrors") != nil {
		t.Fatal(reply.Get("writeErrors"))
	}
	var got bson.D
	no(t, c.FindOne(ctx, bson.M{"_id": want[0].Value}).Decode(&got))
	equal(t, got, want[:len(want)-1])
}

func TestPagesInOrder(t *testing.T) {
	_, c := shop(t)
	ctx := context.Background()
	var keys []string
	var docs []any
	for i := range 600 {
		for _, suffix := range []string{"", " ", "!", "\"", "a", "\\", "<", "é", "한", "\U0001F600"} {
			key := fmt.Sprintf("k%d%s", i, suffix)
			keys = append(keys, key)
			docs = append(docs, bson.M{"_id": key})
		}
	}
	_, err := c.InsertMany(ctx, docs)
	no(t, err)
	sort.Strings(keys)
	var got []string
	for after := ""; ; {
		cursor, err := c.Find(ctx, bson.M{"_id": bson.M{"$gt": after}}, options.Find().SetSort(bson.M{"_id": 1}).SetLimit(256).SetBatchSize(100))
		no(t, err)
		var page []struct {
			ID string `bson:"_id"`
		}
		no(t, cursor.All(ctx, &page))
		if len(page) == 0 {
			break
		}
		for _, d := range page {
			got = append(got, d.ID)
		}
		after = got[len(got)-1]
	}
	equal(t, got, keys)
}

func TestBulkWrites(t *testing.T) {
	_, c := shop(t)
	ctx := context.Background()
	models := []mongo.WriteModel{
		mongo.NewInsertOneModel().SetDocument(bson.M{"_id": "a"}),
		mongo.NewUpdateOneModel().SetFilter(bson.M{"_id": "a"}).SetUpdate(bson.M{"$set": bson.M{"x": 1}}).SetUpsert(true),
		mongo.NewReplaceOneModel().SetFilter(bson.M{"_id": "b"}).SetReplacement(bson.M{"y": 1}).SetUpsert(true),
		mongo.NewInsertOneModel().SetDocument(bson.M{"_id": "a"}),
		mongo.NewInsertOneModel().SetDocument(bson.M{"_id": "c"}),
	}
	for _, ordered := range []bool{true, false} {
		no(t, c.Drop(ctx))
		r, err := c.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(ordered))
		if !mongo.IsDuplicateKeyError(err) {
			t.Fatal(err)
		}
		// What precedes the failure stands; what follows it only where the order does not matter.
		want := map[bool]int64{true: 1, false: 2}[ordered]
		equal(t, []int64{r.InsertedCount, r.ModifiedCount, r.UpsertedCount}, []int64{want, 1, 1})
		equal(t, r.UpsertedIDs, map[int64]any{2: "b"})
	}
	_, err := c.UpdateOne(ctx, bson.M{"_id": "a"}, bson.M{"$set": bson.M{"_id": "z"}})
	equal(t, code(err), int32(66))
	_, err = c.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.M{"mail": 1}, Options: options.Index().SetUnique(true)})
	no(t, err)
	_, err = c.InsertOne(ctx, bson.M{"_id": "m1", "mail": "x"})
	no(t, err)
	_, err = c.InsertOne(ctx, bson.M{"_id": "m2", "mail": "x"})
	if !mongo.IsDuplicateKeyError(err) || strings.Contains(err.Error(), "index: _id_") {
		t.Fatal(err)
	}
	_, err = c.InsertOne(ctx, bson.M{"_id": "nan", "x": primitive.NewDecimal128(1, 2)})
	equal(t, code(err), int32(2))
}

func TestDroppedDatabaseIsGone(t *testing.T) {
	_, c := shop(t)
	ctx := context.Background()
	var docs []any
	for i := range 500 {
		docs = append(docs, bson.M{"_id": i})
	}
	for range 5 {
		_, err := c.InsertMany(ctx, docs)
		no(t, err)
		open, err := c.Find(ctx, bson.M{}, options.Find().SetBatchSize(10)) // a cursor that nobody ends
		no(t, err)
		no(t, c.Database().Drop(ctx))
		for open.Next(ctx) {
		}
		if open.Err() == nil {
			t.Fatal("the cursor outlived its database")
		}
		n, err := c.CountDocuments(ctx, bson.M{})
		no(t, err)
		equal(t, n, int64(0))
	}
}

// go test -run - -bench . -cpu 2: 16 clients on 100,000 documents.
func BenchmarkAt100000(b *testing.B) {
	_, c := shop(b)
	ctx := context.Background()
	const documents, clients = 100_000, 16
	_, err := c.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.M{"_ttl": 1}, Options: options.Index().SetExpireAfterSeconds(0)})
	no(b, err)
	key := func(i int) string { return fmt.Sprintf("orders||order/%06d", i%documents) }
	value := strings.Repeat(`{"lines":[{"product":"p1"}]}`, 20)
	began := time.Now()
	for i := 0; i < documents; i += 1000 {
		var docs []any
		for j := range 1000 {
			docs = append(docs, bson.D{{Key: "_id", Value: key(i + j)}, {Key: "value", Value: value}, {Key: "_etag", Value: "e"}, {Key: "_ttl", Value: nil}})
		}
		_, err := c.InsertMany(ctx, docs)
		no(b, err)
	}
	b.Logf("%d documents inserted in %v", documents, time.Since(began))
	var next atomic.Int64
	step := func() int { return int(next.Add(1)) * 7919 }
	for _, m := range []struct {
		name string
		do   func() error
	}{
		{"get", func() error { _, err := daprGet(c, bson.M{"$eq": key(step())}); return err }},
		{"bulk get of 100", func() error {
			keys := bson.A{}
			for range 100 {
				keys = append(keys, key(step()))
			}
			got, err := daprGet(c, bson.M{"$in": keys})
			if len(got) != 100 {
				return fmt.Errorf("%d documents: %w", len(got), err)
			}
			return err
		}},
		{"upsert", func() error { _, err := daprSet(c, key(step()), value, "e", "", 0); return err }},
		{"upsert by etag", func() error { _, err := daprSet(c, key(step()), value, "e", "e", 0); return err }},
		{"page of 100", func() error {
			cursor, err := c.Find(ctx, bson.M{"_id": bson.M{"$gt": key(step() % (documents - 200))}}, options.Find().SetSort(bson.M{"_id": 1}).SetLimit(100))
			if err != nil {
				return err
			}
			var page []bson.M
			return cursor.All(ctx, &page)
		}},
		{"push, by FerretDB", func() error {
			_, err := c.UpdateOne(ctx, bson.M{"_id": key(step())}, bson.M{"$push": bson.M{"a": 1}})
			return err
		}},
	} {
		for _, parallel := range []int{1, clients} {
			b.Run(fmt.Sprintf("%s/%d clients", m.name, parallel), func(b *testing.B) {
				var wg sync.WaitGroup
				var left, nanos atomic.Int64
				left.Store(int64(b.N))
				for range parallel {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							began := time.Now()
							if err := m.do(); err != nil {
								b.Error(err)
								return
							}
							nanos.Add(int64(time.Since(began)))
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(nanos.Load())/float64(b.N)/1e6, "ms/call")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
			})
		}
	}
}
