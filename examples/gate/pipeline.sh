#!/usr/bin/env bash
# A pipeline that takes one model of four: bash examples/gate/pipeline.sh [FOLDER]
#
# It trains three models beside a deployment of its own (`provenance up`, local anchors) and holds
# each against one policy. Refused are a copy with one flipped byte, a model that was never
# anchored, and one that a stranger signed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "${1:-$(mktemp -d)}"
export PROVENANCE_BASE_DIR=$PWD/artifacts

team=$(provenance identity --new team.key 2>/dev/null)
provenance identity --new stranger.key >/dev/null 2>&1
echo '{"blockchain": {"storage_options": {"store_before_training": false, "store_after_training": false}}}' > unanchored.json

provenance up > up.log 2>&1 &
up=$!
trap 'kill "$up" 2>/dev/null; wait "$up" 2>/dev/null || true' EXIT

train() { # MODEL KEY [CONFIG]
    PROVENANCE_IDENTITY_KEY_FILE=$2 python "$here/train.py" "$1" ${3:+"$3"} > "$1.run" 2>> train.log
}
at_home() { # MODEL: until it is sealed, and anchored where that was asked for
    until provenance verify "$(cat "$1.run")" > /dev/null 2>&1; do
        kill -0 "$up" || { cat up.log >&2; exit 3; }
        sleep 1
    done
}
train true team.key
train unknown stranger.key
at_home true
at_home unknown
train unanchored team.key unanchored.json # last: an anchor covers all runs before it
at_home unanchored
cp -r true flipped
python - <<'END'
data = bytearray(open("flipped/model.safetensors", "rb").read())
data[-1] ^= 1
open("flipped/model.safetensors", "wb").write(data)
END
cp true.run flipped.run

provenance bundle "$(cat true.run)" --output bundle > /dev/null
cat > policy.yaml <<END
ledger_keys: ["$(cat bundle/ledger.vkey)"] # of one's own deployment; provenance doctor prints it too
networks:
  local: {}
signers:
  team: "$team"
END

passed=""
for model in true flipped unanchored unknown; do
    if provenance gate --model "$model" --policy policy.yaml --run "$(cat "$model.run")"; then
        passed="$passed $model"
    fi
done
echo "to deploy:$passed"
