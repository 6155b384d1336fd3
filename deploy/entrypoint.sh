#!/bin/sh
# NAME_FILE=/path in the environment becomes NAME=<what the file holds>, then the command
# runs. So a secret stands in no image, no compose file and no `docker inspect`.
set -eu

refuse() {
    echo "entrypoint: $1" >&2
    exit 2
}

take() { # NAME, and whether it may be empty
    eval "path=\${$1_FILE:-}"
    [ -n "$path" ] || return 0
    [ -r "$path" ] || refuse "$1_FILE: cannot read $path"
    value=$(cat "$path")
    if [ -z "$value" ]; then
        [ "$2" = optional ] || refuse "$1_FILE: $path is empty"
        return 0
    fi
    export "$1=$value"
}

[ $# -gt 0 ] || refuse "no command"
for name in PROVENANCE_REDIS_URL PROVENANCE_BROKER_URL PROVENANCE_DATABASE_URL FLOWER_BASIC_AUTH; do
    take "$name" needed
done
# Empty where a network does without.
for name in PROVENANCE_ETHEREUM_PRIVATE_KEY PROVENANCE_ETHEREUM_KEYSTORE_PASSWORD \
    PROVENANCE_BITCOIN_PASSWORD PROVENANCE_IPFS_AUTH; do
    take "$name" optional
done
unset value path name
exec "$@"
