#!/usr/bin/env bash
# Makes `kubectl` a command, unless there is one already; with --remove, takes back what it made.
set -euo pipefail
cd "$(dirname "$0")/.."
link=/usr/local/bin/kubectl
if [ "${1:-}" = --remove ]; then
    if [ "$(readlink "$link" || true)" = "$PWD/target/release/kubectl" ]; then
        rm "$link"
    fi
elif ! command -v kubectl > /dev/null && [ -x target/release/kubectl ]; then
    ln -s "$PWD/target/release/kubectl" "$link"
    echo "kubectl is now a command ($link)"
fi
