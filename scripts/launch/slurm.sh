#!/usr/bin/env bash
#SBATCH --job-name=megatron
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --output=%x-%j.log
# Train by Slurm: sbatch --nodes 4 scripts/launch/slurm.sh [flags of pretrain_gpt.py], with --save and --load of one folder.
# Five minutes before the end every rank gets SIGUSR1, finishes its step and saves; sent again, the same job goes on.
set -euo pipefail
: "${SLURM_SUBMIT_DIR:?this is for sbatch; on one machine use scripts/launch/node.sh}"
# Slurm runs a copy of this file; MEGATRON_ROOT is set by what calls sbatch from elsewhere, or names another Megatron.
root="${MEGATRON_ROOT:-}"
[ -e "$root/scripts/launch/nodes.sh" ] || root="$SLURM_SUBMIT_DIR"
[ -e "$root/scripts/launch/nodes.sh" ] || { echo "error: $root does not hold this repository; call sbatch there, or with MEGATRON_ROOT=/its/folder" >&2; exit 2; }
HEAD="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):${PORT:-29500}"
export HEAD NODES="$SLURM_NNODES" NAME="$SLURM_JOB_ID" RANKS="${RANKS:-${SLURM_GPUS_ON_NODE:-}}"
exec srun --kill-on-bad-exit=1 bash "$root/scripts/launch/nodes.sh" "$@"
