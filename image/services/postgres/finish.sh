#!/bin/sh
# A user; without what no server in a container runs: Debian's cluster tools, Perl, and the compiler for
# queries, which PostgreSQL does without when it is not there.
set -eu
root=$1
echo 'postgres:x:999:999:PostgreSQL:/var/lib/postgresql:/bin/sh' >>"$root/etc/passwd"
echo 'postgres:x:999:' >>"$root/etc/group"
for program in "$root"/usr/lib/postgresql/17/bin/*; do
    name=${program##*/}
    rm -f "$root/usr/bin/$name"
    ln -s "../lib/postgresql/17/bin/$name" "$root/usr/bin/$name"
done
cd "$root/usr"
rm -rf lib/x86_64-linux-gnu/libLLVM* lib/x86_64-linux-gnu/libz3* lib/postgresql/17/lib/bitcode lib/postgresql/17/lib/llvmjit* \
    lib/x86_64-linux-gnu/perl* lib/x86_64-linux-gnu/libperl* share/perl* bin/perl* bin/openssl include lib/x86_64-linux-gnu/gconv \
    share/i18n share/postgresql-common lib/x86_64-linux-gnu/libsqlite3* lib/x86_64-linux-gnu/libdb-* src games
rm -rf "$root/var/lib/postgresql" "$root/etc/postgresql"* "$root/run/postgresql" "$root/var/run/postgresql"
mkdir -p "$root/var/lib/postgresql/data" "$root/run/postgresql"
chown -R 999:999 "$root/var/lib/postgresql" "$root/run/postgresql"
