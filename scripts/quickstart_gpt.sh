# Sourced by the quickstarts of GPTs: from text to difficulty, and the flags of their runs.
entry=pretrain_gpt.py
# shellcheck source=scripts/quickstart_steps.sh
. "$(dirname "$0")/quickstart_steps.sh"
sample=(--sample "$run/sample.txt")

# 1. Text: gathered here, unless some is given.
if [ ${#corpus[@]} -eq 0 ]; then
    step collect "$run/corpus.jsonl" python tools/collect_corpus.py --output "$run/corpus.jsonl"
    corpus=("$run/corpus.jsonl")
fi

# 2. Tokens: a byte-level BPE of 8,192 tokens, and the corpus in Megatron's .bin/.idx format, documents shuffled. Long documents
#    are several sequences, so that the split finds its shares in one large text, too. Lines that hold no document are left out
#    and named.
step tokenizer "$run/tokenizer.json" \
    python tools/train_tokenizer.py --input "${corpus[@]}" --on-bad-line skip --vocab-size 8192 --output "$run/tokenizer.json"
tokenizer=(--tokenizer-type HuggingFaceTokenizer --tokenizer-model "$run/tokenizer.json")
dataset="$run/corpus_text_document"
step preprocess "$dataset.bin $dataset.idx $dataset.json" \
    python tools/preprocess_data.py --input "${corpus[@]}" --on-bad-line skip --output-prefix "$run/corpus" "${tokenizer[@]}" \
    --append-eod --shuffle-documents 1 --max-sequence-length 512 --workers 2 --overwrite

# 3. Difficulty: how rare the words of every sample of 256 tokens are. A small corpus gives more of itself for validation and test.
split=98,1,1
[ "$(cat "$dataset.bin" 2> /dev/null | wc -c)" -gt 2000000 ] || split=90,5,5
data=(--data-path "$dataset" --split "$split" --seq-length 256)
step analyze "$run/difficulty" \
    python tools/analyze_data.py "${data[@]}" --metrics vocab_rarity --output-dir "$run/difficulty" --workers 2

# The plan of the data-efficient runs. Over the first third sequences grow from 64 to 256 tokens while rarer words are admitted;
# the middle layers compute 64 tokens of each sequence at first, and all of them after three fifths.
model=(--num-layers 4 --hidden-size 128 --num-attention-heads 4 --position-embedding-type rope --hidden-dropout 0 --attention-dropout 0)
training=(--micro-batch-size 4 --global-batch-size 8 --train-tokens "$tokens" --lr 2e-3 --min-lr 1e-4 --lr-decay-style cosine
    --lr-warmup-fraction 0.05 --weight-decay 0.1 --adam-beta2 0.95)
efficient=(--difficulty-path "$run/difficulty"
    --curriculum "vocab_rarity:difficulty=percentile,min=1,max=100,pacing=fixed_root,root=2,duration=$(steps_of 160)"
    --curriculum "seqlen_truncate:min=64,max=256,pacing=fixed_linear,duration=$(steps_of 160),quantum=8"
    --random-ltd --random-ltd-min 64 --random-ltd-duration "$(steps_of 280)")
often=(--eval-interval "$(steps_of 50)" --eval-iters 25 --save-interval "$(steps_of 100)" --log-interval "$(steps_of 25)")
run_flags=("${model[@]}" "${data[@]}" "${training[@]}" "${often[@]}")

# generate NAME: a sample of what this model writes.
generate() {
    step generate "$run/sample.txt" \
        python tools/generate_text.py --load "$run/$1" "${tokenizer[@]}" --prompt "def " --prompt "The " --num-tokens 120 \
        --temperature 0.8 --top-k 50 --output "$run/sample.txt"
}
