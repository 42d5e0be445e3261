#!/usr/bin/env bash
# BERT-large of arXiv 2212.03597, rows 1 to 15, and of arXiv 2211.11586, LTD-1 and LTD-2: 64 V100.
# Use: scripts/launch/recipes.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
script=pretrain_bert.py
rows=(bert_large/{baseline,cl_seqtru,cl_seqreo,cl_voc,cl_seqtru_voc,cl_seqreo_voc,random_ltd,composed}_1049b
    bert_large/{baseline,cl_seqtru_voc,random_ltd}_703b bert_large/{baseline,cl_seqtru_voc,random_ltd,composed}_524b
    bert_large/first_random_ltd_{1_774b,2_721b})
# shellcheck source=scripts/launch/recipes.sh
. "$(dirname "$0")/recipes.sh"
