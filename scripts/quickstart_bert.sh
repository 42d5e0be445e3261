#!/usr/bin/env bash
# From raw text to a report on data-efficient pretraining of an encoder, and what it is worth on labelled texts, in one command:
#
#     bash scripts/quickstart_bert.sh [--clean] [--dry-run] [CORPUS.jsonl|.txt|FOLDER ...]
#
# Without a corpus it takes the descriptions of Debian's packages where apt knows them, else what scripts/quickstart.sh takes. An
# encoder is trained with and without curriculum and random-LTD, on equal budgets, from one seed. Both, and random weights, are
# finetuned to tell the section of a package from its description, where apt knows these. All else is as in scripts/quickstart.sh:
# steps that go on after a stop, a folder for every corpus, here in runs/quickstart_bert, and --clean and --dry-run.
# QUICKSTART_TOKENS=N trains each run on N tokens instead of 5000000; all schedules and intervals follow, and where N is smaller,
# so do the epochs of finetuning, 2 else.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail

results=runs/quickstart_bert usual_tokens=5000000 entry=pretrain_bert.py sample=()
# shellcheck source=scripts/quickstart_steps.sh
. "$(dirname "$0")/quickstart_steps.sh"

# 1. Text and labels: package descriptions, and texts that are given or gathered here.
labelled=no
[ -z "$(apt-cache dumpavail 2> /dev/null | head -n 1 || true)" ] || labelled=yes
[ "$labelled" = no ] || step packages "$run/packages" \
    python tools/collect_labelled.py --output "$run/packages"
if [ ${#corpus[@]} -eq 0 ] && [ "$labelled" = yes ]; then
    corpus=("$run/packages/text.jsonl")
elif [ ${#corpus[@]} -eq 0 ]; then
    step collect "$run/corpus.jsonl" python tools/collect_corpus.py --output "$run/corpus.jsonl"
    corpus=("$run/corpus.jsonl")
fi

# 2. Tokens: a WordPiece vocabulary of 4,096 words and parts of words, and the corpus as sentences, documents shuffled.
step tokenizer "$run/tokenizer.json" \
    python tools/train_tokenizer.py --model wordpiece --input "${corpus[@]}" --on-bad-line skip --vocab-size 4096 \
    --output "$run/tokenizer.json"
tokenizer=(--tokenizer-type BertWordPieceLowerCase --vocab-file "$run/tokenizer.json")
dataset="$run/corpus_text_sentence"
step preprocess "$dataset.bin $dataset.idx $dataset.json" \
    python tools/preprocess_data.py --input "${corpus[@]}" --on-bad-line skip --output-prefix "$run/corpus" "${tokenizer[@]}" \
    --split-sentences --shuffle-documents 1 --workers 2 --overwrite

# 3. Difficulty: how long the samples are, and how rare their words.
data=(--data-path "$dataset" --split 90,5,5 --seq-length 64)
step analyze "$run/difficulty" \
    python tools/analyze_data.py --task bert "${data[@]}" --bert-no-binary-head --short-seq-prob 0 --metrics vocab_rarity seqlen --output-dir "$run/difficulty" --workers 2

# 4. The plan of the data-efficient run. Over the first third samples of rarer words are admitted and may be longer, up to 64
#    tokens; the middle layers compute 16 tokens of each at first, and all of them after three fifths. Short samples share rows.
model=(--num-layers 4 --hidden-size 128 --num-attention-heads 4 --hidden-dropout 0 --attention-dropout 0 --bert-no-binary-head
    --bert-pack --mask-prob 0.2 --short-seq-prob 0)
training=(--micro-batch-size 32 --global-batch-size 64 --train-tokens "$tokens" --lr 2e-3 --min-lr 1e-4 --lr-decay-style cosine
    --lr-warmup-fraction 0.05 --weight-decay 0.1 --adam-beta2 0.95)
efficient=(--difficulty-path "$run/difficulty"
    --curriculum "vocab_rarity:difficulty=percentile,min=5,max=100,pacing=fixed_root,root=2,duration=$(steps_of 65)"
    --curriculum "seqlen_truncate:min=16,max=64,pacing=fixed_linear,duration=$(steps_of 65),quantum=8"
    --random-ltd --random-ltd-min 16 --random-ltd-duration "$(steps_of 117)")
often=(--eval-interval "$(steps_of 20)" --eval-iters 10 --save-interval "$(steps_of 50)" --log-interval "$(steps_of 10)")
run_flags=("${model[@]}" "${data[@]}" "${training[@]}" "${often[@]}")
step plan "$run/plan" \
    python tools/plan_run.py --task bert "${model[@]}" "${data[@]}" "${training[@]}" "${efficient[@]}" --vocab-size 4096 \
    --data-parallel-size 2 --output "$run/plan"

# 5. Training: with curriculum and random-LTD, then the same budget without.
step check "" \
    python pretrain_bert.py "${run_flags[@]}" "${efficient[@]}" --save "$run/check" --dry-run
train efficient "${efficient[@]}"
train baseline
for name in efficient baseline; do evaluate "$name"; done

# 6. Finetuning: the section of a package, from both and from random weights, three seeds each; 2 epochs, in thousandths.
epochs=$((tokens < usual_tokens ? 2000 * tokens / usual_tokens : 2000))
epochs=$((epochs > 0 ? epochs : 1))
epochs=$(printf '%d.%03d' $((epochs / 1000)) $((epochs % 1000)))
finetune() {
    local name="$1" from="$2"
    shift 2
    step "finetune-$name" "$run/sections_$name" \
        python finetune.py --task classification --train-file "$run/packages/sections/train.tsv" \
        --valid-file "$run/packages/sections/dev.tsv" --text-column sentence --label-column label --load "$run/$from" \
        --seq-length 64 --epochs "$epochs" --sweep-lr 3e-3 --seeds 1234-1236 --save "$run/sections_$name" "$@"
}
if [ "$labelled" = yes ]; then
    finetune efficient efficient
    finetune baseline baseline
    finetune random baseline --random-init
else
    echo "note: apt-cache knows no packages here, so nothing is finetuned; apt-get update makes it know them" >&2
fi

# 7. The report.
report "Quickstart: an encoder with curriculum and random-LTD against the same budget without" baseline efficient
echo "  $run/report.html             both runs side by side"
echo "  $run/plan/plan.png           the plan of the data-efficient run"
echo "  $run/efficient/metrics.jsonl every step in numbers; tensorboard --logdir $run shows the same as curves"
[ "$labelled" = no ] || echo "  $run/sections_*/sweep.json   accuracy on package sections: efficient, baseline, random weights"
