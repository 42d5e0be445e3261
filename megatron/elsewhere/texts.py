"""What is said of words of other programs about texts and tokenizers for which no one flag stands."""

from megatron.elsewhere.answer import Answer

ANSWERS = (
    Answer(
        "a BPE of bytes has no unknown text, and words and digits are cut as GPT-2 cuts them (for other cuts "
        "make a tokenizer.json with the library tokenizers, which tools/preprocess_data.py reads); "
        "--special-tokens names tokens of their own; leave it out",
        "byte-fallback split-digits individual-digits pretokenizer pre-tokenizers unk-token unk-piece "
        "unk-surface hard-vocab-limit add-dummy-prefix "
        "normalization-rule-name normalizer pre-tokenizer add-prefix-space initial-alphabet "
        "split-by-whitespace split-by-number split-by-unicode-script treat-whitespace-as-suffix",
    ),
    Answer(
        "--special-tokens have the ids from 0 on, in their order",
        "pad-id bos-id eos-id unk-id pad-piece bos-piece eos-piece pad-token bos-token",
    ),
    Answer(
        "training takes all cores, RAYON_NUM_THREADS in the environment fewer; --max-bytes says how much of "
        "the text is read",
        "num-threads input-sentence-size shuffle-input-sentence train-extremely-large-corpus",
    ),
    Answer(
        "no token stands before a text, and --append-eod puts one behind it; leave it out",
        "prepend-bos add-bos add-bos-token prepend-bos-token append-bos bos-text bos-token bos-token-id "
        "tokenizer.bos-token-id add-special-tokens no-special-tokens",
    ),
    Answer(
        "a BPE of bytes keeps case and accents, and WordPiece lowers them unless --cased is given",
        "lowercase do-lower-case lower-case uncased strip-accents",
    ),
    Answer(
        "the tokenizer's files say it; leave it out, or change the texts before",
        "lowercase do-lower-case lower-case strip-accents",
        "--append-eod",
    ),
    Answer(
        "--special-tokens names it: the default is the token that ends documents",
        "eod-token eos-token eos",
    ),
    Answer(
        "tokens are trained from nothing but --input; leave it out",
        "base-tokenizer from-tokenizer tokenizer tokenizer-name tokenizer-name-or-path vocab vocab-file "
        "merge-file merges-file",
        "--limit-alphabet",
    ),
    Answer(
        "there is one way to train each --model, the same every time; leave it out",
        "byte-level dropout wordpieces-prefix continuing-subword-prefix end-of-word-suffix pattern regex "
        "split-regex tiktoken-pattern max-token-length max-piece-length max-sentencepiece-length "
        "max-sentence-length seed show-progress log-interval batch-size clean-text handle-chinese-chars",
        "--limit-alphabet",
    ),
    Answer(
        "training takes all cores, RAYON_NUM_THREADS in the environment fewer; leave it out",
        "workers num-workers num-proc processes",
        "--limit-alphabet",
    ),
    Answer(
        "--max-bytes says how much of the text is read",
        "max-lines max-chars doc-cap limit sample num-samples max-samples max-docs max-documents "
        "max-sentences num-docs",
        "--limit-alphabet",
    ),
    Answer(
        "datasets are joined by tools/merge_datasets.py, which has --input and --output-prefix, too",
        "datasets merge-datasets",
        "--append-eod",
    ),
    Answer(
        "datasets are written whole: preprocess what is new under another --output-prefix, and join them "
        "with tools/merge_datasets.py",
        "append resume continue incremental resume-from start-from start-index skip-existing",
        "--append-eod",
    ),
    Answer(
        "--workers are processes of one machine; give parts of the files to several runs as --input, each "
        "with an --output-prefix of its own, and join them with tools/merge_datasets.py",
        "shard-index shard-id shard num-shards shards rank world-size jobs partition-id nodes node-rank",
        "--append-eod",
    ),
    Answer(
        "whole documents are written, and training cuts windows of its --seq-length; "
        "leave it out, or give --max-sequence-length to cut long documents",
        "concat-tokens concat truncation truncate padding no-wrap packing pack chunk-length stride overlap "
        "drop-long-sequences max-len pack-impl pad-to-length with-sentence-length need-pad-id "
        "target-seq-len concat-length",
        "--append-eod",
    ),
    Answer(
        "--append-eod puts the token behind every document that --eod-token names, or the tokenizer's files",
        "eos-text use-tokenizer-eos eos-token-id eos tokenizer.eos-token-id eod-id eos-id append-eos-token",
    ),
    Answer(
        "the files are not packed: ids take two bytes where the vocabulary has fewer than 65,500 tokens, and "
        "four otherwise; leave it out",
        "dtype token-dtype compression hashes",
        "--append-eod",
    ),
    Answer(
        "texts are read as UTF-8; convert the files of --input first, by iconv -f ENCODING -t UTF-8",
        "encoding file-encoding input-encoding",
    ),
    Answer(
        "--samples N shows documents, and as text where the flags of a tokenizer are given, too",
        "decode show-text detokenize text print-text",
        "--allow-trailing-bytes",
    ),
    Answer(
        "give --shuffle-documents SEED",
        "seed shuffle-seed random-seed shuffle-docs shuffle-data random-shuffle",
    ),
    Answer(
        "all documents of --input are written; cut the files before, as by head -n",
        "limit max-docs max-samples num-samples max-lines sample num-examples max-examples "
        "sample-size start end max-num-samples hf-max-samples-per-split take",
        "--append-eod",
    ),
    Answer(
        "all documents of --input are written as they are; filter the files before",
        "dedup deduplicate min-length min-len min-tokens max-words remove-empty skip-empty filter filters "
        "drop-empty min-chars clean normalize strip prepend-space",
        "--append-eod",
    ),
    Answer(
        "files are read piece by piece, whatever their size; leave it out",
        "streaming stream batch-size mem-limit memory-limit in-memory cache-dir keep-in-memory no-cache "
        "max-memory buffer-size",
        "--append-eod",
    ),
    Answer(
        "flags are given on the command line alone here",
        "config config-file config-path yaml",
        "--append-eod",
    ),
    Answer(
        "texts are taken as they are, without a template; write dialogues as texts first",
        "chat-template apply-chat-template prompt-template template mask-prompt train-on-inputs",
        "--append-eod",
    ),
)
