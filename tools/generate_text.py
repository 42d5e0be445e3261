"""Let a trained GPT continue texts."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

from dataclasses import dataclass

import torch

from megatron.base.errors import UserError
from megatron.base.files import whole_file, writable_file
from megatron.config.arguments import parse, unused_flags
from megatron.config.config import TokenizerOptions
from megatron.config.evaluation import BOS_TOKEN
from megatron.config.flags import NEWEST, flag
from megatron.config.foreign import ANY, Foreign, is_our
from megatron.config.other_megatrons import OF_THE_CHECKPOINT
from megatron.data.tokenizer_value import Tokenizer
from megatron.evaluation.generate import Choice, continuation, decode_documents, generate
from megatron.evaluation.restore import documents_as_trained, restore, tokenizer_of
from megatron.evaluation.score import begin_of
from megatron.model.gpt import GPT
from megatron.preprocess.round_trip import first_change

EXAMPLES = """\
  python tools/generate_text.py --load runs/small --prompt "The function returns" --num-tokens 100 \\
      --temperature 0.8
"""

LENGTHS = "out-seq-length max-new-tokens maximum-tokens tokens-to-generate num-tokens-to-generate length"
FROM_CHECKPOINT = "the checkpoint says it"
OF_MODEL = (
    "seq-length max-seq-len max-seq-length context-length context-size ctx-size n-ctx dtype torch-dtype "
    "precision bf16 use-checkpoint-args"
)
OTHER_WORD = "it is another word for a flag of ours"
REPEATS = (
    "repetition-penalty no-repeat-ngram-size frequency-penalty presence-penalty penalty-alpha penalty "
    "repeat-penalty"
)
PENALTIES = (
    "texts are drawn by the model's own probabilities; give --temperature 1 and --top-p 0.9 where the "
    "likeliest tokens repeat themselves"
)
BIASES = (
    "bad-words bad-words-ids force-words-ids logit-bias suppress-tokens forced-bos-token-id "
    "forced-eos-token-id guidance-scale"
)
BEAMS = "num-beams beam-width beam-search num-beam-groups length-penalty early-stopping best-of"
SEARCHES = "no texts are searched; give --temperature 0 for the likeliest token at every place"
STOPPING = (
    "stop stop-sequences stop-token stop-tokens stop-words stop-strings stop-string stop-ids stop-token-id "
    "stop-token-ids eos-token-id eos-token-ids reverse-prompt"
)
STOPS = "a text ends at the end of a document, or behind --num-tokens; give that, and cut the text yourself"
IN_FILES = "sample-input-file prompt-file prompts-file input-file file in-file input"
FILES = 'give --prompt "$(cat FILE)", once for each text'
BEGINS = "no token stands before a prompt but where --bos-token names one; give that"
CUTS = "min-p typical typical-p top-a tfs epsilon-cutoff eta-cutoff mirostat top-n-sigma xtc-probability"
TALKS = (
    "chat chat-mode interactive conversation instruct multi-turn system system-prompt system-message "
    "chat-template apply-chat-template"
)
SCORES = (
    "logprobs log-probs top-logprobs top-n-tokens return-log-probs return-logprobs output-log-probs "
    "output-scores"
)
SAME = "keys and values are kept, and nothing is compiled, which gives the same tokens"
FASTER = "recompute use-cache no-use-cache kv-cache no-kv-cache compile torch-compile"
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
    **{name: Foreign((), PENALTIES) for name in REPEATS.split()},
    **{
        name: Foreign((), "tokens are drawn by the model's own probabilities alone")
        for name in BIASES.split()
    },
    **{name: Foreign(("1",), SEARCHES) for name in BEAMS.split()},
    **{name: Foreign((), STOPS) for name in STOPPING.split()},
    **{name: Foreign((), "give --top-p or --top-k to leave unlikely tokens out") for name in CUTS.split()},
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
        name: Foreign((), "no probabilities are shown; tools/evaluate.py tells losses of texts; leave it out")
        for name in SCORES.split()
    },
    **{
        name: Foreign((), "weights are as the checkpoint has them; leave it out")
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
    "skip-special-tokens": Foreign(None, "the end of a document alone is shown, and with --ignore-eod alone"),
    **{name: Foreign(None, "a text is shown when it is whole") for name in ("stream", "streaming")},
    "do-sample": Foreign(
        None,
        "tokens are drawn by their probabilities, unless --temperature is 0",
        off=is_our("temperature", "0"),
    ),
    **{name: Foreign(None, SAME) for name in FASTER.split()},
}


@dataclass(frozen=True, kw_only=True)
class Options:
    load: str = flag(help="folder of checkpoints, or one checkpoint", metavar="FOLDER")
    tokenizer: TokenizerOptions
    prompt: tuple[str, ...] = flag(
        ("",), "a text to continue; repeat the flag for several", repeat=True, metavar="TEXT"
    )
    bos_token: str | None = flag(None, BOS_TOKEN, metavar="TOKEN")
    num_tokens: int = flag(100, "tokens to add to each", at_least=1)
    temperature: float = flag(1.0, "below 1 sharper, above 1 flatter, 0 the likeliest token", at_least=0)
    top_k: int = flag(0, "choose among the k likeliest tokens; 0: all")
    top_p: float = flag(
        1.0, "choose among the likeliest tokens of this total probability; 1: all", at_least=0, at_most=1
    )
    seed: int = flag(1234, "of the choices; a text is the same with any --micro-batch-size")
    micro_batch_size: int = flag(8, "texts that are continued together", at_least=1)
    ignore_eod: bool = flag(
        False, "go on behind the token that ends a document; by default the text ends there"
    )
    ckpt_step: int | None = flag(None, "step of the checkpoint; the newest", otherwise=NEWEST)
    output: str | None = flag(None, "also write the texts to a file", metavar="FILE")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__, examples=EXAMPLES, foreign=FOREIGN)
    if options.top_k < 0:
        raise UserError(f"--top-k {options.top_k} would leave no token; give 0 for all")
    for prompt in options.prompt:
        _refuse_file(prompt)
    if not options.top_p:
        raise UserError("--top-p 0 would leave no token; give 1 for all, or --temperature 0")
    for line in unused_flags(Options, sys.argv[1:], FOREIGN):
        print(f"note: {line}", file=sys.stderr)
    if options.output:
        writable_file(options.output)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    restored = restore(options.load, options.ckpt_step, device)
    model, config = restored.model, restored.config
    if not isinstance(model, GPT):
        raise UserError(
            f"{restored.folder}: is a model of the task {restored.task.name}, which continues no text; name "
            "a GPT's"
        )
    found = tokenizer_of(restored, options.tokenizer)
    if found is None:
        raise UserError(
            f"--tokenizer-type is required, and the tokenizer's files: none is kept in {options.load}"
        )
    tokenizer, _ = found

    begin = begin_of(restored, tokenizer, options.bos_token)
    prompts = [_ids(tokenizer, prompt, config.data.seq_length, begin) for prompt in options.prompt]
    choice = Choice(options.temperature, options.top_k, options.top_p, options.seed)
    stop = None if options.ignore_eod else tokenizer.eod
    documents, texts = documents_as_trained(restored), list[str]()
    for first in range(0, len(prompts), options.micro_batch_size):
        part = prompts[first : first + options.micro_batch_size]
        rest = (options.num_tokens, config.data.seq_length, choice, stop, documents)
        for ids, new in zip(part, generate(model, part, *rest, numbers=range(first, first + len(part)))):
            texts.append(options.prompt[len(texts)] + continuation(tokenizer, ids, new))
            print(texts[-1] + "\n")
    if options.output:
        with whole_file(options.output, "w") as file:
            file.write("\n\n".join(texts) + "\n")


def _refuse_file(prompt: str) -> None:
    """UserError where a prompt names a file as other programs do."""
    file = prompt.removeprefix("FILE:") if prompt.startswith("FILE:") else prompt.removeprefix("@")
    if file != prompt and os.path.isfile(file):
        raise UserError(f'--prompt {prompt}: a prompt is the text itself; give --prompt "$(cat {file})"')


def _ids(tokenizer: Tokenizer, prompt: str, context: int, begin: tuple[int, ...]) -> list[int]:
    """The tokens of a prompt, behind what is to `begin` it; it is said where the model does not see all of
    it."""
    ids = [int(token) for token in tokenizer.encode_batch([prompt])[0]]
    if seen := _altered(tokenizer, prompt, ids):
        print(f"note: the tokenizer drops or alters text of the prompt: {seen}", file=sys.stderr)
    if len(ids) > context:
        print(
            f"note: of the prompt's {len(ids)} tokens the model sees the last {context}",
            file=sys.stderr,
        )
    return [*begin, *ids] or [tokenizer.eod]


def _altered(tokenizer: Tokenizer, prompt: str, ids: list[int]) -> str:
    """How a prompt differs from what the model sees of it; empty if it does not."""
    if not prompt or tokenizer.kind == "NullTokenizer":
        return ""
    return first_change(prompt, decode_documents(tokenizer, ids))


if __name__ == "__main__":
    run_command(main)
