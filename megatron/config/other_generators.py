"""Flags of other programs that generate text in front of tools/generate_text.py: read as ours, refused or
told to be unused."""

from collections.abc import Mapping

from megatron.config.foreign import ANY, Foreign, is_our
from megatron.config.other_megatrons import OF_THE_CHECKPOINT

LENGTHS = "out-seq-length max-new-tokens maximum-tokens tokens-to-generate num-tokens-to-generate length"
FROM_CHECKPOINT = "the checkpoint says it"
OF_MODEL = (
    "seq-length max-seq-len max-seq-length context-length context-size ctx-size n-ctx dtype torch-dtype "
    "precision bf16 use-checkpoint-args"
)
OTHER_WORD = "it is another word for a flag of ours"
REPEATS = {
    "repetition-penalty repeat-penalty penalty": ("1",),
    "no-repeat-ngram-size frequency-penalty presence-penalty penalty-alpha": ("0",),
}
"""Names of flags, and their values that change nothing; so in what follows."""
PENALTIES = (
    "texts are drawn by the model's own probabilities; give --temperature 1 and --top-p 0.9 where the "
    "likeliest tokens repeat themselves"
)
BIASES = {
    "bad-words bad-words-ids force-words-ids logit-bias suppress-tokens forced-bos-token-id "
    "forced-eos-token-id prevent-newline-after-colon": ("none",),
    "guidance-scale": ("1",),
}
BEAMS = "num-beams beam-size beam-width beam-search num-beam-groups length-penalty early-stopping best-of"
SEARCHES = "no texts are searched; give --temperature 0 for the likeliest token at every place"
STOPPING = (
    "stop stop-sequences stop-token stop-tokens stop-words stop-strings stop-string stop-ids stop-token-id "
    "stop-token-ids eos-token-id eos-token-ids reverse-prompt stop-sequence stopping-criteria end-strings "
    "end-of-generation-token stop-on-eol stop-on-double-eol until eos"
)
STOPS = "a text ends at the end of a document, or behind --num-tokens; give that, and cut the text yourself"
IN_FILES = "sample-input-file prompt-file prompts-file input-file file in-file input"
FILES = 'give --prompt "$(cat FILE)", once for each text'
BEGINS = "no token stands before a prompt but where --bos-token names one; give that"
CUTS = {
    "min-p top-a epsilon-cutoff eta-cutoff mirostat xtc-probability": ("0",),
    "typical typical-p tfs": ("1",),
    "top-n-sigma": ("-1", "0"),
}
TALKS = (
    "chat chat-mode interactive conversation instruct multi-turn system system-prompt system-message "
    "chat-template apply-chat-template"
)
SCORES = (
    "logprobs log-probs top-logprobs top-n-tokens return-log-probs return-logprobs output-log-probs "
    "output-scores"
)
SAME = "keys and values are kept, and nothing is compiled, which gives the same tokens"
PADS = ("pad-token-id", "pad-token", "padding-side", "attention-mask")
FASTER = "recompute use-cache no-use-cache kv-cache no-kv-cache compile torch-compile"


def _refused(why: str, names: Mapping[str, tuple[str, ...]]) -> dict[str, Foreign]:
    return {name: Foreign(values, why) for some, values in names.items() for name in some.split()}


FOREIGN = {
    **OF_THE_CHECKPOINT,
    **{name: Foreign(None, FROM_CHECKPOINT) for name in OF_MODEL.split()},
    **{name: Foreign(None, OTHER_WORD, ours=is_our("num_tokens")) for name in LENGTHS.split()},
    **{name: Foreign(None, OTHER_WORD, ours=is_our("output")) for name in ("genfile", "sample-output-file")},
    **{name: Foreign(None, OTHER_WORD, ours=is_our(f"top_{name}")) for name in "kp"},
    **{
        name: Foreign(None, OTHER_WORD, ours=is_our("temperature", "0"))
        for name in ("greedy", "no-do-sample")
    },
    "num-samples": Foreign(("1",), "give --prompt once for each text"),
    **{name: Foreign((), FILES) for name in IN_FILES.split()},
    **{name: Foreign((), BEGINS) for name in ("add-bos", "add-bos-token", "prepend-bos")},
    "text-gen-type": Foreign((), "give --prompt TEXT, or none for a text from its beginning"),
    **_refused(PENALTIES, REPEATS),
    **_refused("tokens are drawn by the model's own probabilities alone", BIASES),
    **{name: Foreign(("1",), SEARCHES) for name in BEAMS.split()},
    **{name: Foreign((), STOPS) for name in STOPPING.split()},
    **_refused("give --top-p or --top-k to leave unlikely tokens out", CUTS),
    "num-return-sequences": Foreign(("1",), "give --prompt once for each text"),
    **{
        name: Foreign(("0",), "--ignore-eod goes on behind the end of a document, to --num-tokens; give that")
        for name in ("min-length", "min-new-tokens", "min-tokens")
    },
    **{
        name: Foreign(
            (), "a text is continued as it stands; give --prompt with all of a talk, in its template"
        )
        for name in TALKS.split()
    },
    **{
        name: Foreign(
            ("0", "none"), "no probabilities are shown; tools/evaluate.py tells losses of texts; leave it out"
        )
        for name in SCORES.split()
    },
    **{
        name: Foreign(("none",), "weights are as the checkpoint has them; leave it out")
        for name in ("quantize", "quantization", "load-in-8bit", "load-in-4bit")
    },
    **{
        name: Foreign(
            (), "a checkpoint is whole; merge the adapter by PEFT's merge_and_unload, and convert that"
        )
        for name in ("lora", "lora-path", "lora-weights", "adapter", "adapters", "adapter-path")
    },
    **{
        name: Foreign(
            None, "", (ANY,), beside=lambda _: "texts are shown behind their prompts, whatever is given"
        )
        for name in ("echo", "no-echo", "return-full-text", "include-prompt")
    },
    **{name: Foreign(None, "what fills a shorter text is not seen") for name in PADS},
    "use-eod-token-for-early-termination": Foreign(
        None, "a text ends at the end of a document", off=is_our("ignore_eod", "true")
    ),
    "no-stop-on-eos": Foreign(None, OTHER_WORD, ours=is_our("ignore_eod", "true")),
    "skip-special-tokens": Foreign(None, "the end of a document alone is shown, and with --ignore-eod alone"),
    **{name: Foreign(None, "a text is shown when it is whole") for name in ("stream", "streaming")},
    "do-sample": Foreign(
        None,
        "tokens are drawn by their probabilities, unless --temperature is 0",
        off=is_our("temperature", "0"),
    ),
    **{name: Foreign(None, SAME) for name in FASTER.split()},
}
