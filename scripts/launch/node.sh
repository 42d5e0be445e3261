#!/usr/bin/env bash
# Train on this machine: RANKS=8 bash scripts/launch/node.sh [flags of pretrain_gpt.py]
# RANKS: processes, else one a GPU. SCRIPT: another command than pretrain_gpt.py. The plan is shown first.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
ranks="${RANKS:-$(nvidia-smi --list-gpus 2> /dev/null | wc -l || true)}"
[ "$ranks" -gt 0 ] || { echo "error: no GPU is here; give RANKS=2 for two processes" >&2; exit 2; }
script="$root/${SCRIPT:-pretrain_gpt.py}"
command -v python > /dev/null && command -v torchrun > /dev/null || { echo "error: python and torchrun are not on PATH; enter the environment first: . $root/.venv/bin/activate" >&2; exit 2; }
python "$root/tools/plan_run.py" torchrun --nproc-per-node "$ranks" "$script" "$@"
trap '' USR1 USR2 # which Slurm and others send to all processes: torchrun would die of them, and the ranks save
exec torchrun --standalone --nproc-per-node "$ranks" "$script" "$@"
