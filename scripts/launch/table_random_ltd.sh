#!/usr/bin/env bash
# GPT-3 350M and 1.3B of arXiv 2211.11586, the baseline and random-LTD: 64 GPUs, which were A100 there.
# Use: scripts/launch/recipes.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
rows=({gpt3_350m,gpt3_1.3b}/{baseline_300b,first_random_ltd_200b})
# shellcheck source=scripts/launch/recipes.sh
. "$(dirname "$0")/recipes.sh"
