#!/bin/sh
# Starts Redis with the users of compose.yaml: a store may touch its own keys only (they begin with its name), the bus only
# streams, which are called like events or dead-letters-…, and the health check nothing. Nobody can log in as `default`; it has
# all rights because Redis reads its own file of writes as that user, and would leave out what that user may not do.
set -eu
hash() { printf %s "$1" | sha256sum | cut -d ' ' -f 1; }
umask 077
cat >/tmp/users.acl <<ACL
user default off ~* &* +@all
user health on nopass +ping
user orderview on ~orderview||* +@all -@dangerous +info #$(hash "$ORDERVIEW_PASSWORD")
user stamps on ~stamps||* +@all -@dangerous +info #$(hash "$STAMPS_PASSWORD")
user events on ~[A-Z]* ~dead-letters-* +@all -@dangerous +info #$(hash "$EVENTS_PASSWORD")
ACL
chown redis /tmp/users.acl
# Durability: docs/decisions/0002-redis-durability.md
exec docker-entrypoint.sh redis-server --aclfile /tmp/users.acl --save "" --appendonly yes --appendfsync always
