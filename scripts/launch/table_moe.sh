#!/usr/bin/env bash
# GPT-3 MoE 6.7B, rows 16 and 17: 64 V100.
# Use: scripts/launch/recipes.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
rows=(gpt3_moe_6.7b/{baseline,composed}_300b)
# shellcheck source=scripts/launch/recipes.sh
. "$(dirname "$0")/recipes.sh"
