#!/usr/bin/env bash
# GPT-2 350M on Penn Treebank: 1 GPU; give its converted weights by --load.
# Use: scripts/launch/recipes.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
rows=(gpt2_350m_ptb/{baseline,cl_seqres,random_ltd,composed}
    gpt2_350m_ptb/first_{baseline,random_ltd,random_ltd_all,random_ltd_but_first,random_ltd_but_last})
# shellcheck source=scripts/launch/recipes.sh
. "$(dirname "$0")/recipes.sh"
