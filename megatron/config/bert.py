"""The flags of encoders and of their samples, and the rules between them."""

import dataclasses
import re
from dataclasses import dataclass

from megatron.base.errors import UserError, collect_problems
from megatron.config.data import DataConfig
from megatron.config.experts import ExpertsConfig
from megatron.config.flags import flag, spelling
from megatron.config.model import ModelConfig
from megatron.config.parallel import ParallelConfig
from megatron.config.patterns import layer_pattern

HEADS = ("pooler", "cls", "mean")
"""What may stand before the last matrix of a classifier."""


@dataclass(frozen=True)
class SentencesConfig:
    """How sentences become samples, in training and in the analysis of their difficulty."""

    bert_pair: str = flag(
        "sop",
        "what the second half of a sample may be instead: it and the first half in the other order, or "
        "sentences of another document",
        choices=("sop", "nsp"),
    )
    bert_no_binary_head: bool = flag(False, "samples are one text, and nothing is told of pairs")
    short_seq_prob: float = flag(
        0.1, "share of samples that are drawn to be shorter than the sequence", at_least=0, at_most=1
    )
    bert_passes: int = flag(
        1,
        "passes over the documents that make the samples, in each of which sentences are joined anew; behind "
        "the last one the samples of the first come again",
        at_least=1,
    )

    @property
    def pair(self) -> str:
        """What is told of pairs, "" where there are none."""
        return "" if self.bert_no_binary_head else self.bert_pair


@dataclass(frozen=True)
class BertConfig:
    mask_prob: float = flag(0.15, "share of tokens that are to be told", above=0, below=1)
    masking: str = flag(
        "dynamic",
        "a sample is masked anew whenever it is drawn, or always alike",
        choices=("dynamic", "static"),
    )
    mask_unit: str = flag("word", "what is masked as a whole", choices=("word", "token"))
    mask_ngrams: int = flag(3, "the most neighbouring words that are masked together", at_least=1)
    mask_ngram_lengths: str = flag(
        "harmonic",
        "how likely n words are: as 1/n, or geometric with 0.2 and cut at the most (arXiv 1907.10529)",
        choices=("harmonic", "geometric"),
    )
    bert_group_lengths: bool = flag(
        False,
        "samples of a batch are sorted by length into micro-batches, each as long as it must be",
        resume="free",
    )
    bert_pack: bool = flag(
        False, "short samples of a micro-batch share rows, each seeing itself alone", resume="free"
    )
    window_size: str = flag(
        "",
        "tokens before and behind a token that layers with a window see, such as 64,64; -1: all",
        metavar="BEFORE,BEHIND",
    )
    window_attn_skip_freq: str = flag(
        "",
        "every N-th layer sees the whole row; or a pattern, 1 for a layer with a window, such as "
        "'[0,1,1]*8'; all have one where it is not given",
        metavar="N|PATTERN",
    )
    local_rotary_base: float = flag(
        None,
        "base of the rotary angles in layers with a window; --rotary-base",
        above=0,
        follows=lambda model: model.rotary_base,
        resume="meaning",
    )
    embedding_norm: bool = flag(False, "a norm behind the embedding takes the place of the first layer's")
    classifier_head: str = flag(
        "pooler",
        "head that finetune.py gives this encoder: BERT's pooler; or ModernBERT's, of the first token (cls) "
        "or of the mean over all",
        choices=HEADS,
        resume="free",
    )


OF_THE_MODEL = (
    "bert_pair",
    "bert_no_binary_head",
    "window_size",
    "window_attn_skip_freq",
    "local_rotary_base",
    "embedding_norm",
    "classifier_head",
)
"""Flags of these groups that say what the model is, and not what it is fed."""


def window(bert: BertConfig) -> tuple[int, int] | None:
    """Tokens before and behind a token that are seen; UserError where the text is not understood."""
    if not bert.window_size:
        return None
    found = re.fullmatch(r"\(?\s*(-1|\d+)\s*,\s*(-1|\d+)\s*\)?", bert.window_size.strip(), re.ASCII)
    if found is None:
        raise UserError(f"--window-size {bert.window_size}: write two numbers of at least -1, such as 64,64")
    return int(found[1]), int(found[2])


def window_layers(bert: BertConfig, num_layers: int) -> tuple[int, ...]:
    """Numbers of the layers that have a window; UserError where their pattern is not understood."""
    if not bert.window_size:
        return ()
    text, every = bert.window_attn_skip_freq, tuple(range(num_layers))
    if not text:
        return every
    pattern = layer_pattern(text, num_layers, "--window-attn-skip-freq", "'[0,1,1]*8'")
    if isinstance(pattern, int):
        return tuple(layer for layer in every if (layer + 1) % pattern)
    return tuple(layer for layer, one in zip(every, pattern) if one)


def _windows(bert: BertConfig, model: ModelConfig) -> list[str]:
    text, found = bert.window_attn_skip_freq, list[str]()
    if text and not bert.window_size:
        return ["--window-attn-skip-freq needs --window-size; give it, such as 64,64"]
    with collect_problems(found):
        window(bert)
    if not text:
        return found
    try:
        pattern = layer_pattern(text, model.num_layers, "--window-attn-skip-freq", "'[0,1,1]*8'")
    except UserError as error:
        return [*found, *error.problems]
    if isinstance(pattern, list) and len(pattern) != model.num_layers:
        found.append(
            f"--window-attn-skip-freq {text!r} is a pattern of {len(pattern)} layers, and --num-layers is "
            f"{model.num_layers}; make them equal"
        )
    return found


def of_pairs(sentences: SentencesConfig) -> list[str]:
    """What contradicts itself about pairs."""
    if sentences.bert_no_binary_head and sentences.bert_pair != SentencesConfig.bert_pair:
        return [
            f"--bert-pair {sentences.bert_pair} and --bert-no-binary-head, which has no pairs: give only one"
        ]
    return []


def of_bert(
    bert: BertConfig,
    sentences: SentencesConfig,
    model: ModelConfig,
    data: DataConfig,
    parallel: ParallelConfig,
    experts: ExpertsConfig,
) -> list[str]:
    """What an encoder's run cannot have."""
    found, shortest = of_pairs(sentences), 3 if sentences.bert_no_binary_head else 5
    if data.seq_length < shortest:
        found.append(f"--seq-length {data.seq_length}: a sample has at least {shortest} tokens; raise it")
    if model.untie_embeddings_and_output_weights:
        found.append(
            "--untie-embeddings-and-output-weights: the head of an encoder is its embedding; leave it out"
        )
    for name in ("eod_mask_loss", "reset_position_ids", "reset_attention_mask"):
        if getattr(data, name):
            found.append(
                f"{spelling(name)}: samples of pretrain_bert.py end with their document; leave it out"
            )
    if parallel.context_parallel_size > 1 and "p2p" in parallel.cp_comm_type:
        found.append("--cp-comm-type p2p passes keys in causal order; give allgather or a2a")
    if experts.num_experts > 1:
        found.append("--num-experts: mixtures of experts are built by pretrain_gpt.py alone; leave it out")
    if bert.bert_pack and bert.bert_group_lengths:
        found.append("--bert-pack and --bert-group-lengths are two ways to save padding; give only one")
    return found


def of_gpt(bert: BertConfig, sentences: SentencesConfig, model: ModelConfig) -> list[str]:
    """Flags of encoders, which do nothing in a GPT's run."""
    plain = {"local_rotary_base": model.rotary_base}
    given = [
        spelling(field.name)
        for group, options in ((sentences, SentencesConfig), (bert, BertConfig))
        for field in dataclasses.fields(options)
        if getattr(group, field.name) != plain.get(field.name, field.default)
    ]
    return [f"{', '.join(given)}: belongs to pretrain_bert.py; leave it out"] if given else []


def window_notes(bert: BertConfig, model: ModelConfig) -> list[str]:
    """That angles of windows turn nothing."""
    if bert.local_rotary_base == model.rotary_base:
        return []
    if bert.window_size and model.position_embedding_type == "rope":
        return []
    return ["--local-rotary-base: not used without --window-size and --position-embedding-type rope"]


RULES = (_windows,)
