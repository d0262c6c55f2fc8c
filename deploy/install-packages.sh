#!/usr/bin/env bash
# Installs the Debian packages that a node and the tests need, and those it is given, if they are missing. Services
# that the packages would start by themselves are not started: clusters here run a containerd (and tests an etcd) of
# their own.
set -euo pipefail

packages=(containerd runc containernetworking-plugins iptables nftables conntrack iproute2 etcd-server etcd-client openssl make gcc libc6-dev binutils ca-certificates "$@")
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "these packages are missing, and only root can install them: ${missing[*]}" >&2
        exit 1
    fi
    echo "installing ${missing[*]}"
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod 755 "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
fi
# Images are made from packages that are downloaded, not installed: the lists must be there.
if ! apt-cache show busybox > /dev/null 2>&1; then
    apt-get update -qq
fi
