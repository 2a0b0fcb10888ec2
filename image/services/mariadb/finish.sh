#!/bin/sh
# A user; without the texts of the help tables, which take longer to load than all the rest.
set -eu
root=$1
echo 'mysql:x:999:999:MariaDB:/var/lib/mysql:/bin/sh' >>"$root/etc/passwd"
echo 'mysql:x:999:' >>"$root/etc/group"
cd "$root/usr"
: >share/mariadb/fill_help_tables.sql
rm -rf lib/x86_64-linux-gnu/gconv bin/innochecksum bin/mariadb-check share/info games src
rm -rf "$root/var/lib/mysql" "$root/run/mysqld" "$root/etc/mysql"
mkdir -p "$root/var/lib/mysql" "$root/run/mysqld"
chown 999:999 "$root/var/lib/mysql" "$root/run/mysqld"
