#!/bin/sh
# The main job on inventories/calendar, in a folder of its own: init, plan, apply, prove, and once more to see that nothing is left to do.
set -eu
mtlsctl=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
rm -rf .demo
mkdir .demo
# The demo's encryption key lies beside the demo, not among yours.
XDG_CONFIG_HOME=$(pwd)/.demo/config
export XDG_CONFIG_HOME

run() { printf '\n$ mtlsctl %s\n' "$*"; "$mtlsctl" "$@"; }

run init .demo/calendar --name calendar --example calendar --no-input
cd .demo/calendar
run plan
run apply --yes
run verify --embedded
run plan
printf '\nThe applied files are in .demo/calendar/out. Change who may call whom in\n'
printf '.demo/calendar/inventories/calendar, and run: mtlsctl plan\n'
