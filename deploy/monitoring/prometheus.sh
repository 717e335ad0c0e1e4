#!/bin/sh
# Prints the folder that holds prometheus and promtool. Where they are not installed, Debian's package
# is unpacked into .venv-prometheus: nothing is installed, and no service starts.
# Exit status 3, with the reason: they cannot be had here.
set -eu
cd "$(dirname "$0")/../.."
into=.venv-prometheus

if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
    dirname "$(command -v promtool)"
    exit 0
fi
if [ -x "$into/usr/bin/promtool" ]; then
    echo "$PWD/$into/usr/bin"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "neither promtool nor apt-get is here: install Prometheus to run these checks" >&2
    exit 3
fi
apt() { timeout 120 apt-get -qq -o Acquire::http::Timeout=15 -o Acquire::Retries=1 "$@" >&2; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
get() { (cd "$scratch" && apt -o APT::Sandbox::User="$(id -un)" download prometheus); }
if ! get; then # the lists may be old, or missing
    if [ "$(id -u)" != 0 ] || ! apt update || ! get; then
        echo "Debian's package prometheus cannot be downloaded: install it to run these checks" >&2
        exit 3
    fi
fi
dpkg-deb -x "$scratch"/prometheus_*.deb "$scratch/tree"
mkdir -p "$into"
cp -r "$scratch/tree/." "$into/"
echo "$PWD/$into/usr/bin"
