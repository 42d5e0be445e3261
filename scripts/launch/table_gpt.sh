#!/usr/bin/env bash
# GPT-3 1.3B of arXiv 2212.03597, rows 1 to 15: 64 V100.
# Use: scripts/launch/recipes.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
rows=(gpt3_1.3b/{baseline,cl_seqtru,cl_seqres,cl_voc,cl_seqtru_voc,cl_seqres_voc,random_ltd,composed}_300b
    gpt3_1.3b/{baseline,cl_seqtru_voc,random_ltd}_200b gpt3_1.3b/{baseline,cl_seqtru_voc,random_ltd,composed}_150b)
# shellcheck source=scripts/launch/recipes.sh
. "$(dirname "$0")/recipes.sh"
