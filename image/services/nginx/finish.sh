#!/bin/sh
# The folders that nginx's package would have made, and a configuration that serves them.
set -eu
root=$1
mkdir -p "$root/var/lib/nginx" "$root/var/log/nginx" "$root/var/www/html" "$root/run"
rm -rf "$root/etc/nginx/sites-enabled" "$root/etc/nginx/modules-enabled" "$root/usr/share/perl5"
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
