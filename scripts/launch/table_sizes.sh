#!/usr/bin/env bash
# GPT-3 from 125M to 175B: 64 V100 up to 1.3B, then 64 to 1,024 H100.
# Use: scripts/launch/recipes.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
rows=(gpt3_{125m,350m,760m,1.3b,2.7b,6.7b,13b,175b}/{baseline,composed}_300b)
# shellcheck source=scripts/launch/recipes.sh
. "$(dirname "$0")/recipes.sh"
