#!/usr/bin/env bash
# From raw text to a report on a mixture of experts, in one command:
#
#     bash scripts/quickstart_moe.sh [--clean] [--dry-run] [CORPUS.jsonl|.txt|FOLDER ...]
#
# A token goes to two of eight experts, which together are as wide as the MLP of the dense model beside it: both compute a token
# with as many parameters. Each is trained with and without curriculum and random-LTD, on equal budgets, from one seed. The
# report compares the four runs, and shows the load of every expert over time. All else is as in scripts/quickstart.sh: steps
# that go on after a stop, a folder for every corpus, here in runs/quickstart_moe, and --clean and --dry-run.
# QUICKSTART_TOKENS=N trains each run on N tokens instead of 350000; all schedules and intervals follow.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail

results=runs/quickstart_moe usual_tokens=350000
# shellcheck source=scripts/quickstart_gpt.sh
. "$(dirname "$0")/quickstart_gpt.sh"

# 4. The plan of the mixture with curriculum and random-LTD. Its experts have half the width of the dense MLP, 512.
mixture=(--num-experts 8 --moe-router-topk 2 --moe-ffn-hidden-size 256 --moe-aux-loss-coeff 1e-2 --moe-z-loss-coeff 1e-3
    --moe-per-layer-logging)
step plan "$run/plan" \
    python tools/plan_run.py "${model[@]}" "${data[@]}" "${training[@]}" "${mixture[@]}" "${efficient[@]}" --vocab-size 8192 \
    --data-parallel-size 2 --output "$run/plan"

# 5. Training: the dense model and the mixture, each without and with curriculum and random-LTD.
step check "" \
    python pretrain_gpt.py "${run_flags[@]}" "${mixture[@]}" "${efficient[@]}" --save "$run/check" --dry-run
train dense
train dense_efficient "${efficient[@]}"
train mixture "${mixture[@]}"
train mixture_efficient "${mixture[@]}" "${efficient[@]}"

# 6. Evaluation, and a sample of what the mixture writes.
for name in dense dense_efficient mixture mixture_efficient; do evaluate "$name"; done
generate mixture_efficient

# 7. The report.
report "Quickstart: a mixture of experts against a dense model of equal active parameters" \
    dense dense_efficient mixture mixture_efficient
echo "  $run/report.html                     the four runs side by side, and the load of every expert"
echo "  $run/plan/plan.png                   the plan of the mixture with curriculum and random-LTD"
echo "  $run/mixture_efficient/metrics.jsonl every step in numbers; tensorboard --logdir $run shows the same as curves"
