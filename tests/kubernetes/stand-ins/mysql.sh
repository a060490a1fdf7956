#!/bin/bash
# Starts MariaDB as the entrypoint of the MySQL image does: on an empty volume it first makes the data, with root's password.
set -eu
[ "${1:-mysqld}" != mysqld ] && [ "${1#-}" = "$1" ] && exec "$@"
[ "${1:-}" = mysqld ] && shift

# Made beside its place and moved there when it is complete: one that was killed in between begins anew.
data=/var/lib/mysql/data
new=/var/lib/mysql/.new
if [ ! -d "$data" ]; then
  : "${MYSQL_ROOT_PASSWORD:?is not set}"
  password=${MYSQL_ROOT_PASSWORD//\\/\\\\}
  password=${password//\'/\\\'}
  rm -rf "$new"
  mkdir "$new"
  echo "docker-entrypoint.sh: making the data"
  mariadb-install-db --no-defaults --datadir="$new" --skip-name-resolve --skip-test-db \
    --auth-root-authentication-method=socket --auth-root-socket-user=mysql >/dev/null
  # Nothing listens meanwhile. The first statement makes the ones about users possible.
  mariadbd --no-defaults --datadir="$new" --bootstrap --silent-startup <<SQL
FLUSH PRIVILEGES;
DROP USER mysql@localhost;
ALTER USER root@localhost IDENTIFIED BY '$password';
CREATE USER root@'%' IDENTIFIED BY '$password';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
SQL
  sync
  mv "$new" "$data"
fi
exec mariadbd --no-defaults --datadir="$data" --socket=/var/run/mysqld/mysqld.sock --pid-file=/var/run/mysqld/mysqld.pid \
  --bind-address='*' --skip-name-resolve "$@"
