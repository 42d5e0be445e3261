#!/usr/bin/env bash
# Tokens and time to the loss of a baseline whose batch and last rate are tuned, too, small.
# Use: scripts/reproduce/reproduce.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
table=headline_tuned
# shellcheck source=scripts/reproduce/reproduce.sh
. "$(dirname "$0")/reproduce.sh"
