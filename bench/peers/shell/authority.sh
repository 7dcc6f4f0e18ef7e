#!/bin/sh
# authority.sh OUT: the CA, once.
set -eu
mkdir -p "$1"
[ -s "$1/ca.crt" ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1/ca.key" \
  -out "$1/ca.crt" -days 1825 -subj "/CN=bench CA" -addext basicConstraints=critical,CA:TRUE,pathlen:0 2>/dev/null
