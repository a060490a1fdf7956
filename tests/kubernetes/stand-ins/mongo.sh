#!/bin/bash
# Starts the stand-in for mongod as the entrypoint of the MongoDB image does: on an empty volume with the root user that the
# environment names. It keeps its users in a file.
set -eu
[ "${1:-mongod}" != mongod ] && [ "${1#-}" = "$1" ] && exec "$@"
[ "${1:-}" = mongod ] && shift

users=/data/db/users.json
quoted() { printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"; }
if [ ! -e "$users" ] && [ -n "${MONGO_INITDB_ROOT_USERNAME:-}" ]; then
  umask 077
  printf '[{"user":%s,"password":%s,"database":"admin","roles":["root"]}]\n' \
    "$(quoted "$MONGO_INITDB_ROOT_USERNAME")" "$(quoted "${MONGO_INITDB_ROOT_PASSWORD:?is not set}")" >"$users.next"
  sync "$users.next"
  mv "$users.next" "$users"
fi
[ -e "$users" ] && set -- --users "$users" "$@"
exec mongod --dbpath /data/db "$@"
