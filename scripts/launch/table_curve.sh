#!/usr/bin/env bash
# Cost and quality of GPT-3 1.3B on 1 to 100 % of the tokens: 64 V100.
# Use: scripts/launch/recipes.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
rows=(gpt3_1.3b/{baseline,composed}_{3,6,12,24,48,96,150,300}b)
# shellcheck source=scripts/launch/recipes.sh
. "$(dirname "$0")/recipes.sh"
