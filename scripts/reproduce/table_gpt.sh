#!/usr/bin/env bash
# GPT-3 1.3B of arXiv 2212.03597 on all, two thirds and half of the tokens, small.
# Use: scripts/reproduce/reproduce.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
table=gpt
# shellcheck source=scripts/reproduce/reproduce.sh
. "$(dirname "$0")/reproduce.sh"
