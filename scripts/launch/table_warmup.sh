#!/usr/bin/env bash
# GPT-2 with the warm-up of lengths of arXiv 2108.06084: 128 V100.
# Use: scripts/launch/recipes.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
rows=(gpt2_117m/{baseline,warmup}_{bs512,bs4k,bs512_seq2k} gpt2_1.5b/{baseline,warmup}_{bs512,bs4k})
# shellcheck source=scripts/launch/recipes.sh
. "$(dirname "$0")/recipes.sh"
