#!/usr/bin/env bash
# ViT on CIFAR-10 or CIFAR-100, by --data-path: 1 GPU; give its weights by --pretrained-checkpoint.
# Use: scripts/launch/recipes.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
script=pretrain_vit.py
rows=(vit_cifar/{baseline,random_ltd})
# shellcheck source=scripts/launch/recipes.sh
. "$(dirname "$0")/recipes.sh"
