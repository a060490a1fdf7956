#!/bin/sh
# As the entrypoint of the Redis image: options and a configuration file are for redis-server, anything else is run as it is.
set -eu
case ${1:-} in
  "" | -* | *.conf) set -- redis-server "$@" ;;
esac
# The official image is built without this protection, which refuses everybody else as long as there is no password.
[ "$1" = redis-server ] && set -- "$@" --protected-mode no
exec "$@"
