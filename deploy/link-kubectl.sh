#!/usr/bin/env bash
# Makes `kubectl` a command, unless there is one already.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v kubectl > /dev/null && [ -x target/release/kubectl ]; then
    ln -s "$PWD/target/release/kubectl" /usr/local/bin/kubectl
    echo "kubectl is now a command (/usr/local/bin/kubectl)"
fi
