#!/bin/sh
# Makes the files that compose.yaml hands to its services; never overwrites one.
#   make-secrets.sh [FOLDER [HOST]]
# HOST, the name by which trainers on other hosts reach this one, makes Redis' certificate too.
#
# The folder is 0700, the files 0444: compose binds them into the containers as they are,
# whose users have other ids than you. On the host the folder keeps everybody else out.
set -eu
folder=${1:-$(dirname "$0")/secrets}
umask 077
mkdir -p "$folder"
chmod 0700 "$folder"

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

put() { # NAME VALUE
    if [ -e "$folder/$1" ]; then
        echo "kept   $folder/$1"
    else
        printf '%s' "$2" >"$folder/$1"
        chmod 0444 "$folder/$1"
        echo "made   $folder/$1"
    fi
}

for user in shipper worker operator; do
    put "redis_${user}_url" "redis://$user:$(random)@redis:6379/0"
done
# Made of the three each time: it holds SHA-256 of their passwords, which Redis 7 takes (`ACL`).
users=$(cat "$(dirname "$0")/redis-users.acl")
for user in shipper worker operator; do
    url=$(cat "$folder/redis_${user}_url")
    url=${url#redis://*:}
    digest=$(printf '%s' "${url%@*}" | sha256sum)
    name=$(printf '%s' "$user" | tr '[:lower:]' '[:upper:]')
    users=$(printf '%s' "$users" | sed "s/#${name}_PASSWORD_SHA256/#${digest%% *}/")
done
rm -f "$folder/redis_users"
put redis_users "$users"
put postgres_password "$(random)"
put database_url "postgresql://provenance:$(cat "$folder/postgres_password")@postgres:5432/provenance"
put flower_basic_auth "provenance:$(random)"
put grafana_password "$(random)"
# Yours to fill in where the network is used; empty means none.
for name in ethereum_private_key bitcoin_password ipfs_auth; do
    put "$name" ""
done
if [ -n "${2:-}" ] && [ ! -e "$folder/redis_tls_key" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
        -subj "/CN=$2" -addext "subjectAltName=DNS:$2" \
        -keyout "$folder/redis_tls_key" -out "$folder/redis_tls_certificate" 2>/dev/null
    chmod 0444 "$folder/redis_tls_key" "$folder/redis_tls_certificate"
    echo "made   $folder/redis_tls_key and redis_tls_certificate"
fi
