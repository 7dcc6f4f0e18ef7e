#!/bin/sh
# The wheel, installed into an empty environment and run in an empty folder, does the main job.
set -eu
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work/dist" .
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$work"/dist/mtlsctl-*.whl
mkdir "$work/empty"
cd "$work/empty"
HOME=$work/home
export HOME
unset XDG_CONFIG_HOME
mtlsctl=$work/venv/bin/mtlsctl
"$mtlsctl" --version
"$mtlsctl" init . --name calendar --example calendar --no-input
"$mtlsctl" plan
"$mtlsctl" apply --yes
"$mtlsctl" verify --embedded
"$mtlsctl" plan --detailed-exitcode
echo "the wheel works from an empty folder"
