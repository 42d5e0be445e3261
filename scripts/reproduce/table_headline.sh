#!/usr/bin/env bash
# Tokens and time to the baseline's loss, with every lever and without each, small.
# Use: scripts/reproduce/reproduce.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
table=headline
# shellcheck source=scripts/reproduce/reproduce.sh
. "$(dirname "$0")/reproduce.sh"
