#!/bin/sh
# there.sh NAME PLACE: key and request made there, signed here; two connections.
set -eu
here=$(dirname "$0")
own=$OUT/$1
mkdir -p "$own"
umask 077
ssh -F "$SSH_CONFIG" "$1" "set -e; umask 077; mkdir -p /etc/bench; openssl req -new -newkey ec \
  -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /etc/bench/tls.key -subj /CN=$1 \
  -addext subjectAltName=DNS:$1.bench.internal 2>/dev/null" >"$own/request"
openssl x509 -req -in "$own/request" -copy_extensions copy -CA "$OUT/ca.crt" -CAkey "$OUT/ca.key" -days 90 \
  -out "$own/tls.crt" 2>/dev/null
cp "$OUT/ca.crt" "$own/ca.crt"
sed -e "s|@NAME@|$1|" -e "s|@PLACE@|$2|" "$here/../nginx.conf.tmpl" >"$own/nginx.conf"
tar -C "$own" -cf - tls.crt ca.crt nginx.conf | ssh -F "$SSH_CONFIG" "$1" '
  set -e; umask 077; tar -xf - -C /etc/bench --no-same-owner
  cp /etc/bench/nginx.conf /etc/nginx/conf.d/bench.conf; nginx -t -q; nginx -s reload'
