#!/usr/bin/env bash
# GPT-2 350M of arXiv 2212.03597, finetuned on text of another kind, small.
# Use: scripts/reproduce/reproduce.sh
set -euo pipefail
table=finetune
# shellcheck source=scripts/reproduce/reproduce.sh
. "$(dirname "$0")/reproduce.sh"
