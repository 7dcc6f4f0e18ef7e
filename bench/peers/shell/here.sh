#!/bin/sh
# here.sh NAME PLACE: key and certificate made here with one openssl, everything in one connection.
set -eu
here=$(dirname "$0")
own=$OUT/$1
mkdir -p "$own"
umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$own/tls.key" -out "$own/tls.crt" \
  -days 90 -subj "/CN=$1" -CA "$OUT/ca.crt" -CAkey "$OUT/ca.key" -addext "subjectAltName=DNS:$1.bench.internal" \
  -addext extendedKeyUsage=serverAuth,clientAuth -addext basicConstraints=critical,CA:FALSE 2>/dev/null
cp "$OUT/ca.crt" "$own/ca.crt"
sed -e "s|@NAME@|$1|" -e "s|@PLACE@|$2|" "$here/../nginx.conf.tmpl" >"$own/nginx.conf"
tar -C "$own" -cf - tls.key tls.crt ca.crt nginx.conf | ssh -F "$SSH_CONFIG" "$1" '
  set -e; umask 077; mkdir -p /etc/bench; tar -xf - -C /etc/bench --no-same-owner
  cp /etc/bench/nginx.conf /etc/nginx/conf.d/bench.conf; nginx -t -q; nginx -s reload'
