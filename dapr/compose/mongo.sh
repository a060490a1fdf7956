#!/bin/bash
# Starts MongoDB as a replica set, which with authentication wants a key file, readable by its user alone.
set -eu
printf %s "$MONGO_KEY" | install -m 400 -o mongodb /dev/stdin /tmp/replica-set.key
exec docker-entrypoint.sh mongod --replSet rs0 --keyFile /tmp/replica-set.key --bind_ip_all "$@"
