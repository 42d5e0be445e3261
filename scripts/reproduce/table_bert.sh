#!/usr/bin/env bash
# BERT-large of arXiv 2212.03597, finetuned on sections of packages, small.
# Use: scripts/reproduce/reproduce.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
table=bert
# shellcheck source=scripts/reproduce/reproduce.sh
. "$(dirname "$0")/reproduce.sh"
