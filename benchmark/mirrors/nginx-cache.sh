#!/bin/sh
# A caching reverse proxy in front of the registry, on each node for itself, as a mirror to compare with:
#   --mirror 'nginx=benchmark/mirrors/nginx-cache.sh {registryPort} {upstream} {data}'
# It needs nginx on PATH.
set -eu
port=$1 upstream=$2 data=$3
mkdir -p "$data/cache" "$data/tmp"
cat >"$data/nginx.conf" <<CONF
user root;
daemon off;
worker_processes 1;
pid $data/pid;
error_log stderr warn;
events {}
http {
  access_log off;
  client_body_temp_path $data/tmp;
  proxy_temp_path $data/tmp;
  fastcgi_temp_path $data/tmp;
  uwsgi_temp_path $data/tmp;
  scgi_temp_path $data/tmp;
  proxy_cache_path $data/cache keys_zone=blobs:10m max_size=4g;
  server {
    listen 127.0.0.1:$port;
    location / {
      proxy_pass $upstream;
      proxy_cache blobs;
      proxy_cache_valid 200 1h;
      proxy_cache_lock on;
    }
  }
}
CONF
exec nginx -p "$data" -c "$data/nginx.conf" -e stderr
