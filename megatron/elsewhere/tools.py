"""What is said of words of other programs that are of tokenizers, preprocessing, conversion, generating text
and images, and that no one flag of ours stands for."""

from megatron.elsewhere.answer import Answer

ANSWERS = (
    # Tokenizers
    Answer("--vocab-size says it", "s", "--max-bytes"),
    Answer(
        "a SentencePiece model is read as its file says; leave it out",
        "sentencepiece-legacy tokenizer-legacy legacy-tokenizer",
        "--tokenizer-model",
    ),
    Answer(
        "a BPE of bytes takes texts as they are, and cuts words as GPT-2 does (for other normalizers, "
        "symbols and cuts make a tokenizer.json with the library tokenizers, which "
        "tools/preprocess_data.py reads); --special-tokens names tokens of their own; leave it out",
        "normalization-rule-tsv denormalization-rule-tsv remove-extra-whitespaces "
        "pretokenization-delimiter required-chars required-chars-file control-symbols-file "
        "user-defined-symbols-file allow-whitespace-only-pieces split-pattern regex-pattern use-regex "
        "trim-offsets fuse-unk nfkc nfc use-all-vocab",
        "--max-bytes",
    ),
    Answer(
        "--model bpe or wordpiece says it; leave it out", "bpe unigram wordpiece word char", "--max-bytes"
    ),
    Answer(
        "wordpiece lowers letters and drops their accents, unless --cased is given; bpe keeps them",
        "do-lowercase lower",
    ),
    Answer(
        "it is how SentencePiece trains, and nothing here is so; leave it out",
        "input-format accept-language self-test-sample-size seed-sentencepiece-size "
        "seed-sentencepieces-file shrinking-factor num-sub-iterations vocabulary-output-piece-score "
        "enable-differential-privacy differential-privacy-* minloglevel random-seed length sentence-size",
        "--max-bytes",
    ),
    # Preprocessing
    Answer(
        "all documents are taken as they are, once; choose and mend them before",
        "percentage skip-errors paragraph doc-sep data-subset dataset-split hf-split",
        "--append-eod",
    ),
    Answer(
        "the parts are made by the run, by its own shares; leave it out",
        "val-split-fraction val-split test-split validation-split train-split val-fraction",
        "--append-eod",
    ),
    Answer(
        "one .bin and one .idx are written, of the smallest type that holds all ids, and not compressed",
        "shard-size max-tokens-per-file max-size compress mmap batch-write-size ring-size writer reader "
        "only-source target-lang joined-dictionary srcdict use-json",
        "--append-eod",
    ),
    Answer(
        "--tokenizer-type BertWordPieceLowerCase lowers letters, BertWordPieceCase does not",
        "do-lower-case lower lowercase",
    ),
    Answer("--overwrite does it", "overwrite-output overwrite-cache force", "--append-eod"),
    # Conversion
    Answer(
        "give --from and --input for what is there, --to and --output for what is to be",
        "megatron-to-hf hf-to-megatron target convert-to reverse",
        "--no-verify",
    ),
    Answer(
        "a folder of Hugging Face's has weights, configuration and tokenizer; leave it out",
        "config config-path gpt2-config-file bert-config-file hf-config-path hparams-file "
        "llama-version model-id no-tokenizer no-save-tokenizer safetensors "
        "safe-mode num-shards mcore ctx in-memory validate",
        "--no-verify",
    ),
    Answer(
        "the folder that is written can be uploaded by Hugging Face's own command; leave it out",
        "upload push hf-repo-for-upload hf-upload-path hf-repo-id",
        "--no-verify",
    ),
    Answer(
        "tools/convert_checkpoint.py --to hf makes a folder to upload; leave it out",
        "push-to-hub hub-*",
        "--lr",
    ),
    # Generating text
    Answer("--seed says it", "s", "--num-tokens"),
    Answer(
        "a prompt is continued as it stands, without a template; leave it out",
        "prompt-type prompt-style prompt-template",
        "--num-tokens",
    ),
    Answer("give --prompt once for each text", "nsamples n-samples", "--num-tokens"),
    Answer(
        "it is one command that continues each --prompt and ends; nothing is served",
        "port host server i",
    ),
    Answer(
        "a model computes in the type of its training, whole, and keeps keys and values; leave it out",
        "fp16 n-gpu-layers use-flash-attn c assistant-model trust-remote-code",
        "--num-tokens",
    ),
    Answer(
        "the texts alone are written; leave it out",
        "return-dict-in-generate decoder-input-details details",
        "--num-tokens",
    ),
    Answer("--save says it", "o"),
    # Images
    Answer(
        "give --img-h N and --img-w N",
        "img-size image-size input-size train-crop-size resolution",
    ),
    Answer(
        "images are changed by --img-crop-scale, --img-flip and --rand-augment alone, and the loss is "
        "that of one class; leave it out",
        "mixup cutmix mixup-prob mixup-mode color-jitter reprob remode random-erasing repeated-aug "
        "aug-splits drop-path drop-path-rate stochastic-depth vflip ratio mixup-alpha cutmix-alpha "
        "cutmix-minmax mixup-switch-prob mixup-off-epoch recount resplit "
        "random-erase aug-repeats color-jitter-prob grayscale-prob gaussian-blur-prob threeaugment "
        "aug-cfg ra-sampler ra-reps no-repeated-aug augmix-severity bce-sum bce-target-thresh "
        "train-crop-mode crop-mode src tta",
    ),
    Answer("--rand-augment-magnitude says it", "ra-magnitude"),
    Answer(
        "classes are the folders' names, in their order; leave it out",
        "dataset-download input-img-mode input-key target-key inat-category dataset-type",
        "--num-classes",
    ),
)
