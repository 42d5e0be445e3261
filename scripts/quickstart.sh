#!/usr/bin/env bash
# From raw text to a report on data-efficient pretraining, in one command:
#
#     bash scripts/quickstart.sh [--clean] [CORPUS.jsonl|.txt|FOLDER ...]
#
# Installs into .venv, then runs the steps below, each a plain command that is printed first. Without a corpus it gathers one
# from this machine: the documentation and sources of Python and of the installed packages. Everything goes to runs/quickstart.
# Finished steps are not done again; an interrupted one goes on; --clean starts over. QUICKSTART_TOKENS=N trains each run on N
# tokens instead of 800000.
set -euo pipefail

clean=no
corpus=()
for argument in "$@"; do
    case "$argument" in
    --clean) clean=yes ;;
    -h | --help) sed -n '2,9p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    -*) echo "error: unknown flag $argument; known are --clean and --help" >&2; exit 2 ;;
    *)
        [ -e "$argument" ] || { echo "error: $argument does not exist; give a .jsonl or .txt file, or a folder of them" >&2; exit 2; }
        corpus+=("$(realpath "$argument")")
        ;;
    esac
done

cd "$(dirname "$0")/.."
. scripts/environment.sh
install_environment ""

run=runs/quickstart
mkdir -p runs
exec 9> runs/.quickstart.lock
python -c "import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)" 2> /dev/null || {
    echo "error: another quickstart is writing to $run; wait for it, or stop it" >&2
    exit 2
}
[ "$clean" = no ] || rm -rf "$run"
mkdir -p "$run/steps"
began=$(date +%s)
stamp=$(cat scripts/quickstart.sh | cksum)

# Print words as they can be pasted into a shell.
quoted() {
    local word
    for word in "$@"; do
        case "$word" in
        "" | *[!A-Za-z0-9_./:=,+-]*) printf " '%s'" "${word//\'/\'\\\'\'}" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
}

# stopped NAME STATUS: what to do after a step that did not finish.
stopped() {
    echo >&2
    case "$2" in
    130 | 143) echo "The step $1 was interrupted; the same command goes on." >&2 ;;
    *) echo "The step $1 failed, for the reason told above; once that is mended, the same command goes on with it." >&2 ;;
    esac
    exit "$2"
}

# step NAME "OUTPUTS" COMMAND...: run a command unless it has finished before, on the same inputs, with the same words.
step() {
    local name="$1" outputs="$2" output
    shift 2
    stamp=$(echo "$stamp $*" | cksum)
    for output in $outputs; do
        [ -e "$output" ] || rm -f "$run/steps/$name.done"
    done
    if [ "$(cat "$run/steps/$name.done" 2>/dev/null)" = "$stamp" ]; then
        echo "= $name: done before"
        return
    fi
    if [ "$(cat "$run/steps/$name.begun" 2>/dev/null)" != "$stamp" ]; then
        # shellcheck disable=SC2086
        rm -rf $outputs "$run/steps/$name.done"
        echo "$stamp" > "$run/steps/$name.begun"
    fi
    printf '\n+'
    quoted "$@"
    printf '\n'
    "$@" || stopped "$name" $?
    echo "$stamp" > "$run/steps/$name.done"
}

# 1. Text: gathered here, unless some is given.
if [ ${#corpus[@]} -eq 0 ]; then
    step collect "$run/corpus.jsonl" python tools/collect_corpus.py --output "$run/corpus.jsonl"
    corpus=("$run/corpus.jsonl")
else
    stamp=$(echo "$stamp $(find "${corpus[@]}" -type f -printf '%p %s %T@\n' | sort)" | cksum)
fi

# 2. Tokens: a byte-level BPE of 8,192 tokens, and the corpus in Megatron's .bin/.idx format, documents shuffled. Long documents
#    are several sequences, so that the split finds its shares in one large text, too.
step tokenizer "$run/tokenizer.json" \
    python tools/train_tokenizer.py --input "${corpus[@]}" --vocab-size 8192 --output "$run/tokenizer.json"
tokenizer=(--tokenizer-type HuggingFaceTokenizer --tokenizer-model "$run/tokenizer.json")
step preprocess "$run/corpus_text_document.*" \
    python tools/preprocess_data.py --input "${corpus[@]}" --output-prefix "$run/corpus" "${tokenizer[@]}" \
    --append-eod --shuffle-documents 1 --max-sequence-length 512 --workers 2 --overwrite

# 3. Difficulty: how rare the words of every sample of 256 tokens are. A small corpus gives more of itself for validation and test.
split=98,1,1
[ "$(wc -c < "$run/corpus_text_document.bin")" -gt 2000000 ] || split=90,5,5
data=(--data-path "$run/corpus_text_document" --split "$split" --seq-length 256)
step analyze "$run/difficulty" \
    python tools/analyze_data.py "${data[@]}" --metrics vocab_rarity --output-dir "$run/difficulty" --workers 2

# 4. The plan of the data-efficient run: sequences grow from 64 to 256 tokens while rarer words are admitted, and the middle
#    layers compute 64 tokens of each sequence at first, all of them from step 280 on.
model=(--num-layers 4 --hidden-size 128 --num-attention-heads 4 --position-embedding-type rope --hidden-dropout 0 --attention-dropout 0)
training=(--micro-batch-size 4 --global-batch-size 8 --train-tokens "${QUICKSTART_TOKENS:-800000}" --lr 2e-3 --min-lr 1e-4 --lr-decay-style cosine
    --lr-warmup-fraction 0.05 --weight-decay 0.1 --adam-beta2 0.95)
efficient=(--difficulty-path "$run/difficulty"
    --curriculum vocab_rarity:difficulty=percentile,min=1,max=100,pacing=fixed_root,root=2,duration=160
    --curriculum seqlen_truncate:min=64,max=256,pacing=fixed_linear,duration=160,quantum=8
    --random-ltd --random-ltd-min 64 --random-ltd-duration 280)
step plan "$run/plan" \
    python tools/plan_run.py "${model[@]}" "${data[@]}" "${training[@]}" "${efficient[@]}" --vocab-size 8192 --data-parallel-size 2 --output "$run/plan"

# 5. Training, on two data-parallel ranks: with curriculum and random-LTD, then the same budget without. A killed run goes on.
often=(--eval-interval 50 --eval-iters 25 --save-interval 100 --log-interval 25)
run_flags=("${model[@]}" "${data[@]}" "${training[@]}" "${often[@]}")
train=(torchrun --standalone --nproc-per-node 2 pretrain_gpt.py "${run_flags[@]}")
step check "" \
    python pretrain_gpt.py "${run_flags[@]}" "${efficient[@]}" --save "$run/efficient" --dry-run
export OMP_NUM_THREADS=1
step train-efficient "$run/efficient" \
    "${train[@]}" "${efficient[@]}" --save "$run/efficient" --load "$run/efficient" --tensorboard-dir "$run/efficient/tensorboard"
step train-baseline "$run/baseline" \
    "${train[@]}" --save "$run/baseline" --load "$run/baseline" --tensorboard-dir "$run/baseline/tensorboard"
unset OMP_NUM_THREADS

# 6. Evaluation on held-out text, and a sample of what the model writes.
for name in efficient baseline; do
    step "evaluate-$name" "$run/$name.json" \
        python tools/evaluate.py --load "$run/$name" "${tokenizer[@]}" --splits valid test --output "$run/$name.json"
done
step generate "$run/sample.txt" \
    python tools/generate_text.py --load "$run/efficient" "${tokenizer[@]}" --prompt "def " --prompt "The " --num-tokens 120 \
    --temperature 0.8 --top-k 50 --output "$run/sample.txt"

# 7. The report.
step report "$run/report.html $run/report_files" \
    python tools/report.py --runs "baseline=$run/baseline" "efficient=$run/efficient" --difficulty-path "$run/difficulty" \
    --evaluation "baseline=$run/baseline.json" "efficient=$run/efficient.json" --sample "$run/sample.txt" \
    --title "Quickstart: curriculum and random-LTD against the same budget without" --output "$run/report.html"

echo
echo "Finished in $(($(date +%s) - began)) s. Look at:"
echo "  $run/report.html             both runs side by side"
echo "  $run/plan/plan.png           the plan of the data-efficient run"
echo "  $run/efficient/metrics.jsonl every step in numbers; tensorboard --logdir $run shows the same as curves"
