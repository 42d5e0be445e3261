#!/usr/bin/env bash
# From raw text to a report on data-efficient pretraining, in one command:
#
#     bash scripts/quickstart.sh [--clean] [--dry-run] [CORPUS.jsonl|.txt|FOLDER ...]
#
# Installs into .venv, then runs the steps below, each a plain command that is printed first. Without a corpus it gathers one
# from this machine: the documentation and sources of Python and of the installed packages. Every corpus has a folder of its
# own in runs/quickstart. Finished steps are not done again; an interrupted one goes on; --clean does all steps of this corpus
# anew. --dry-run prints the commands alone. QUICKSTART_TOKENS=N trains each run on N tokens instead of 800000; all schedules
# and intervals follow.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail

results=runs/quickstart usual_tokens=800000
# shellcheck source=scripts/quickstart_gpt.sh
. "$(dirname "$0")/quickstart_gpt.sh"

# 4. The plan of the data-efficient run.
step plan "$run/plan" \
    python tools/plan_run.py "${model[@]}" "${data[@]}" "${training[@]}" "${efficient[@]}" --vocab-size 8192 --data-parallel-size 2 --output "$run/plan"

# 5. Training: with curriculum and random-LTD, then the same budget without.
step check "" \
    python pretrain_gpt.py "${run_flags[@]}" "${efficient[@]}" --save "$run/check" --dry-run
train efficient "${efficient[@]}"
train baseline

# 6. Evaluation, and a sample of what the model writes.
for name in efficient baseline; do evaluate "$name"; done
generate efficient

# 7. The report.
report "Quickstart: curriculum and random-LTD against the same budget without" baseline efficient
echo "  $run/report.html             both runs side by side"
echo "  $run/plan/plan.png           the plan of the data-efficient run"
echo "  $run/efficient/metrics.jsonl every step in numbers; tensorboard --logdir $run shows the same as curves"
