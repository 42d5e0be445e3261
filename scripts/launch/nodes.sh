#!/usr/bin/env bash
# Train on several machines: the same command on each, in any order.
#   NODES=4 HEAD=host1:29500 RANKS=8 bash scripts/launch/nodes.sh [flags of pretrain_gpt.py]
# NODES: machines. HEAD: name and free port of one of them, where all meet. RANKS: processes a machine, else one a GPU.
# NAME: of the run, where several meet at one HEAD. SCRIPT: another command than pretrain_gpt.py. HEAD shows the plan.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
[ -n "${NODES:-}" ] && [ -n "${HEAD:-}" ] || { echo "error: give NODES=2 HEAD=host1:29500, the same on all machines" >&2; exit 2; }
ranks="${RANKS:-$(nvidia-smi --list-gpus 2> /dev/null | wc -l || true)}"
[ "$ranks" -gt 0 ] || { echo "error: no GPU is here; give RANKS=2 for two processes" >&2; exit 2; }
script="$root/${SCRIPT:-pretrain_gpt.py}"
command -v python > /dev/null && command -v torchrun > /dev/null || { echo "error: python and torchrun are not on PATH; enter the environment first: . $root/.venv/bin/activate" >&2; exit 2; }
case "${HEAD%:*}" in
    "$(hostname)" | "$(hostname -f 2> /dev/null || true)" | localhost | 127.0.0.1)
        python "$root/tools/plan_run.py" torchrun --nnodes "$NODES" --nproc-per-node "$ranks" "$script" "$@" ;;
esac
trap '' USR1 USR2 # which Slurm and others send to all processes: torchrun would die of them, and the ranks save
exec torchrun --nnodes "$NODES" --nproc-per-node "$ranks" --rdzv-backend c10d --rdzv-endpoint "$HEAD" \
    --rdzv-id "${NAME:-megatron}" "$script" "$@"
