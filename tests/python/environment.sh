#!/bin/sh
# Makes a virtual environment with the packages of requirements.txt in FOLDER, once, and prints its interpreter.
#
#   tests/python/environment.sh FOLDER
#
# Exits with 1, and says why, where it cannot: no python3, no venv, no package registry.
set -eu
folder=$1
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)

command -v python3 >/dev/null || { echo "python3 is not installed" >&2; exit 1; }
mkdir -p "$folder"
# Tests of several binaries may come here at once.
if command -v flock >/dev/null; then
    exec 9>"$folder/lock"
    flock 9
fi
if ! cmp -s "$here/requirements.txt" "$folder/installed"; then
    echo "installing $(tr '\n' ' ' <"$here/requirements.txt")into $folder …" >&2
    python3 -m venv --clear "$folder/venv" >&2
    "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" >&2
    cp "$here/requirements.txt" "$folder/installed"
fi
echo "$folder/venv/bin/python"
