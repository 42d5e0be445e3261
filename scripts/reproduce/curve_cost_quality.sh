#!/usr/bin/env bash
# Cost and quality of arXiv 2212.03597, on 8 to 100 % of the tokens, small.
# Use: scripts/reproduce/reproduce.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
table=curve
# shellcheck source=scripts/reproduce/reproduce.sh
. "$(dirname "$0")/reproduce.sh"
