"""What is said of words of other programs about curricula, dropped tokens, experts and masks, for which no
one flag of ours stands."""

from megatron.elsewhere.answer import Answer

ANSWERS = (
    Answer(
        "each of --curriculum METRIC:min=...,max=...,duration=... says it",
        "curriculum-type curriculum-steps curriculum-min curriculum-max curriculum-learning-type "
        "do-curriculum-learning curriculum-metric curriculum-metrics curriculum-difficulty difficulty "
        "curriculum-pacing curriculum-seqlen curriculum-step curriculum-sampling difficulty-type seqlen-type "
        "curriculum-learning-strategy initial-seq-length seq-length-warmup seq-length-warmup-steps "
        "seqlen-warmup seqlen-warmup-steps seq-len-warmup seq-len-warmup-steps sequence-length-warmup "
        "sequence-length-warmup-steps curriculum-seqlen-* min-seq-length min-seq-len min-seqlen",
    ),
    Answer(
        "--curriculum orders the samples of --data-path itself; give it one dataset",
        "data-path-curriculum curriculum-data-path",
    ),
    Answer(
        "tools/analyze_data.py takes a difficulty of your own as a metric MODULE:FUNCTION, and "
        "--curriculum FUNCTION:min=...,max=...,duration=... orders by it",
        "difficulty-column curriculum-learning-column-name curriculum-column difficulty-metric "
        "difficulty-function",
    ),
    Answer(
        "no share of the tokens is dropped for a whole run: --random-ltd keeps more and more of them, from "
        "--random-ltd-min on",
        "keep-prob token-keep-rate keep-rate token-drop-rate patch-dropout patch-drop-rate "
        "mixture-of-depths mod-capacity",
    ),
    Answer(
        "--moe-layer-freq names the layers with experts, such as '[0]+[1]*3' for four of which the first is "
        "dense",
        "first-k-dense-replace first-k-dense n-dense-layers decoder-sparse-step mlp-only-layers "
        "interleave-moe-layer-step moe-layers moe-every-n-layers",
    ),
    Answer(
        "tokens are dropped where --moe-expert-capacity-factor is given, and none without it",
        "moe-token-dropping drop-tokens",
    ),
    Answer(
        "--moe-token-drop-policy says which tokens a full expert drops",
        "use-rts",
    ),
    Answer(
        "an expert has room for one token at least; leave it out",
        "min-capacity",
        "--num-experts",
    ),
    Answer(
        "the weights of a token's experts sum to one, unless --moe-router-pre-softmax is given",
        "norm-topk-prob moe-normalize-expert-weights route-norm normalize-expert-weights",
    ),
    Answer(
        "the balancing loss counts, and is logged, wherever --moe-aux-loss-coeff is above 0",
        "output-router-logits moe-lbl-in-fp32",
    ),
    Answer(
        "the MLP of all tokens beside the experts has its width by --moe-shared-expert-intermediate-size",
        "n-shared-experts num-shared-experts moe-num-shared-experts use-residual moe-use-residual",
    ),
    Answer(
        "a router's noise is --moe-input-jitter-eps",
        "noisy-gate-policy",
    ),
    Answer(
        "tokens choose experts, --moe-router-topk each; --moe-router-num-groups and "
        "--moe-router-enable-expert-bias say among which",
        "expert-choice moe-router-expert-choice topk-method moe-router-type",
    ),
    Answer(
        "what an expert gives is weighed, not what it takes; leave it out",
        "score-before-experts",
        "--num-experts",
    ),
    Answer(
        "experts are computed in one way, with the MLP of --swiglu or --geglu where one is given; leave it "
        "out",
        "moe-use-legacy-grouped-gemm moe-extended-tp use-grouped-mm moe-weight-parallelism moe-glu "
        "moe-mlp-impl moe-type moe-param-group",
    ),
    Answer(
        "--mask-prob says how many of a row's tokens are told",
        "max-predictions-per-seq max-predictions-per-sequence mlm-schedule",
    ),
    Answer(
        "of ten masked tokens eight become [MASK], one another token, and one stays; --mask-prob says how "
        "many are masked",
        "mask-replace-prob random-replace-prob mask-token-prob random-token-prob leave-unmasked-prob",
    ),
    Answer(
        "whole words are masked, unless --mask-unit token is given",
        "whole-word-mask do-whole-word-mask whole-word-masking wwm no-whole-word-mask mask-whole-words",
    ),
    Answer(
        "shorter runs of neighbouring words are likelier; --mask-ngram-lengths says how",
        "favor-shorter-ngram favor-longer-ngram",
    ),
    Answer(
        "--bert-pair says what is told of a pair: sop or nsp",
        "nsp sop next-sentence-prediction use-nsp sentence-order-prediction",
    ),
    Answer(
        "samples are runs of sentences, into which tools/preprocess_data.py has split the documents; leave "
        "it out",
        "line-by-line",
        "--mask-prob",
    ),
)
