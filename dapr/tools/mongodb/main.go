// Command mongodb-standin is a small MongoDB server for development and tests on machines without mongod. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
)

func main() {
	port := flag.Int("port", 27017, "TCP port")
	host := flag.String("bind_ip", "127.0.0.1", "address to listen on")
	dbpath := flag.String("dbpath", "", "directory of the data, made where it is missing")
	usersFile := flag.String("users", "", "JSON file of [{user, password, database, roles?}]; without it no login is asked for")
	replSet := flag.String("replSet", "", "name of a replica set with this one member, which replSetInitiate sets up")
	everywhere := flag.Bool("bind_ip_all", false, "listen on all addresses")
	// So that the command line of a mongod can be used.
	for _, name := range []string{"keyFile", "wiredTigerCacheSizeGB"} {
		flag.String(name, "", "ignored")
	}
	flag.Parse()
	if *everywhere {
		*host = ""
	}
	if err := run(*host, *port, *dbpath, *usersFile, *replSet); err != nil {
		fmt.Fprintln(os.Stderr, "mongodb-standin: "+err.Error())
		os.Exit(1)
	}
}

func run(host string, port int, dbpath, usersFile, replSet string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	if dbpath == "" {
		return errors.New("--dbpath is missing: name a directory for the data")
	}
	s, err := start(ctx, dbpath, usersFile, replSet)
	if err != nil {
		return err
	}
	defer s.stop()
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	fmt.Printf("mongodb-standin listens on %s, data in %s\n", l.Addr(), s.store.dir)
	failed := make(chan error, 1)
	go func() { failed <- s.serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		// At once: what was acknowledged is in SQLite's log, and the next start reads it.
		return nil
	}
}

// start opens the data below dbpath; the server sweeps until the context ends.
func start(ctx context.Context, dbpath, usersFile, replSet string) (*server, error) {
	dir, err := filepath.Abs(dbpath)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &server{store: newStore(dir), cursors: &cursors{all: map[int64]*cursor{}}}
	release, err := lockDirectory(dir)
	if err != nil {
		return nil, err
	}
	if usersFile != "" {
		if s.users, err = loadUsers(usersFile); err != nil {
			release()
			return nil, err
		}
	}
	if replSet != "" {
		if s.replica, err = openReplicaSet(dir, replSet); err != nil {
			release()
			return nil, err
		}
	}
	if s.ferret, err = startFerret(dir); err != nil {
		release()
		return nil, err
	}
	s.stop = func() {
		s.ferret.stop()
		release()
	}
	go s.sweepForever(ctx)
	return s, nil
}
