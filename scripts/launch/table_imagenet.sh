#!/usr/bin/env bash
# ViT on ImageNet: 1 GPU; give its weights by --pretrained-checkpoint.
# Use: scripts/launch/recipes.sh
set -euo pipefail
script=pretrain_vit.py
rows=(vit_imagenet/{baseline,random_ltd})
# shellcheck source=scripts/launch/recipes.sh
. "$(dirname "$0")/recipes.sh"
