#!/bin/sh
# A shell, and the folders that nginx's package would have made.
set -eu
root=$1
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
for name in sh ls cat id ps kill wget; do [ -e "$root/usr/bin/$name" ] || ln -s busybox "$root/usr/bin/$name"; done
mkdir -p "$root/var/lib/nginx" "$root/var/log/nginx" "$root/var/www/html" "$root/run"
rm -rf "$root/etc/nginx/sites-enabled" "$root/etc/nginx/modules-enabled" "$root/var/lib/dpkg" "$root/usr/share/perl5" "$root/var/cache"
cat >"$root/etc/nginx/nginx.conf" <<'CONF'
# The master starts as root, opens port 80 and drops its workers to www-data.
user www-data;
worker_processes 1;
error_log stderr notice;
pid /run/nginx.pid;
events { worker_connections 512; }
http {
    access_log off;
    default_type text/html;
    server {
        listen 80;
        listen [::]:80;
        root /var/www/html;
    }
}
CONF
