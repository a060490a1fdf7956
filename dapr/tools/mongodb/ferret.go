package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/FerretDB/FerretDB/ferretdb"
	"github.com/FerretDB/wire"
	"github.com/FerretDB/wire/wirebson"
)

// ferret is the embedded FerretDB, reached over a Unix socket that only this user can open.
type ferret struct {
	socket string
	idle   chan *ferretConn
	next   atomic.Int32
	stop   func()
}

type ferretConn struct {
	net.Conn
	r *bufio.Reader
	w *bufio.Writer
}

// maxSocketPath: what every Unix takes as the path of a socket.
const maxSocketPath = 100

// startFerret starts FerretDB over the SQLite files in dir.
func startFerret(dir string) (*ferret, error) {
	socket, remove := filepath.Join(dir, "ferretdb.sock"), os.Remove
	if len(socket) > maxSocketPath {
		home, err := os.MkdirTemp("", "mongodb-standin-")
		if err != nil {
			return nil, err
		}
		socket, remove = filepath.Join(home, "s"), func(string) error { return os.RemoveAll(home) }
	}
	_ = os.Remove(socket) // left by a stand-in that was killed; the directory's lock says that none runs
	uri := url.URL{Scheme: "file", Opaque: (&url.URL{Path: dir + "/"}).EscapedPath(), RawQuery: pragmas.Encode()}
	db, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{Unix: socket},
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Handler:   "sqlite",
		SQLiteURL: uri.String(),
	})
	if err != nil {
		_ = remove(socket)
		return nil, fmt.Errorf("FerretDB does not start: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		_ = remove(socket)
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { _ = db.Run(ctx) }()
	f := &ferret{socket: socket, idle: make(chan *ferretConn, 64)}
	f.stop = func() {
		cancel()
		_ = remove(socket)
	}
	return f, nil
}

// call sends one command and returns the answer, which may be an error of MongoDB's kind.
func (f *ferret) call(doc *wirebson.Document) (*wirebson.Document, error) {
	msg, err := wire.NewOpMsg(doc)
	if err != nil {
		return nil, err
	}
	body, err := msg.MarshalBinary()
	if err != nil {
		return nil, err
	}
	c, err := f.conn()
	if err != nil {
		return nil, fmt.Errorf("FerretDB: %w", err)
	}
	header := &wire.MsgHeader{
		MessageLength: int32(len(body) + wire.MsgHeaderLen), RequestID: f.next.Add(1), OpCode: wire.OpCodeMsg,
	}
	if err = wire.WriteMessage(c.w, header, msg); err == nil {
		err = c.w.Flush()
	}
	var reply wire.MsgBody
	if err == nil {
		_, reply, err = wire.ReadMessage(c.r)
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("FerretDB: %w", err)
	}
	select {
	case f.idle <- c:
	default:
		_ = c.Close()
	}
	answer, ok := reply.(*wire.OpMsg)
	if !ok {
		return nil, fmt.Errorf("FerretDB answered with %T", reply)
	}
	raw, err := answer.RawDocument()
	if err != nil {
		return nil, err
	}
	return raw.DecodeDeep()
}

func (f *ferret) conn() (*ferretConn, error) {
	select {
	case c := <-f.idle:
		return c, nil
	default:
	}
	c, err := net.Dial("unix", f.socket)
	if err != nil {
		return nil, err
	}
	return &ferretConn{c, bufio.NewReader(c), bufio.NewWriter(c)}, nil
}

// ok tells whether an answer reports success.
func ok(reply *wirebson.Document) bool { return truthy(reply.Get("ok")) && reply.Get("ok") != nil }
