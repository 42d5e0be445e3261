"""Pretraining an encoder: masked tokens of sentences of a document, and whether two texts follow each
other."""

import contextlib
import dataclasses
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from megatron.base.errors import UserError
from megatron.batches.bert import BertFormat, make_batch, plain_batch
from megatron.batches.loader import Rows
from megatron.config.bert import of_bert
from megatron.config.config import Config
from megatron.config.data import DataConfig
from megatron.config.data_efficiency import DataEfficiencyConfig
from megatron.config.model import ModelConfig
from megatron.config.training import TrainingConfig
from megatron.config.vision import of_text
from megatron.data.corpora import Corpus, Source, Splits, open_splits, require_samples
from megatron.data.pairs import joining_of, mock_sentences, open_sentences
from megatron.data.vocabulary import Vocabulary, find_vocabulary
from megatron.data.wordpiece import bert_tokens
from megatron.model.bert import MLM_ACCURACY, MLM_LOSS, PAIR_ACCURACY, PAIR_LOSS, Bert
from megatron.model.inputs import BertInputs
from megatron.parallel.layers import ONE_RANK
from megatron.parallel.mesh import Mesh
from megatron.parallel.stages import Stage
from megatron.schedule.data_efficiency import RESHAPE, DataEfficiency
from megatron.schedule.data_efficiency_flags import describe
from megatron.tasks.architecture import bert_architecture, bert_flops
from megatron.tasks.task import Data, Task

NO_WORDS = (
    "the tokens of this tokenizer do not tell which of them continue a word, so --mask-unit word masks "
    "pieces of words one by one, as --mask-unit token does; for whole words take a tokenizer that marks "
    "them, as tools/train_tokenizer.py --model wordpiece makes"
)


def open_data(config: Config) -> Data:
    """The corpora that the flags name, in samples of sentences, and their vocabulary."""
    splits = _open(config)
    require_samples(config, splits)
    marked, vocabulary = (
        _marked(splits, config),
        find_vocabulary(config.tokenizer, _corpora(splits), config.data),
    )
    known = all(corpus.marks.words_known for corpus in _corpora(marked))  # type: ignore[attr-defined]
    return Data(marked, vocabulary, "" if known or config.bert.mask_unit != "word" else NO_WORDS)


def open_samples(config: Config) -> Splits:
    """The corpora alone, of which some split may be empty."""
    return _marked(_open(config), config)


def _open(config: Config) -> Splits:
    joining = joining_of(config.sentences, config.data.seq_length, config.training.seed)

    def open_share(source: Source, share: tuple[float, float], split: str) -> Corpus | None:
        return open_sentences(source, share, joining, split)

    return mock_sentences(config, joining) if config.data.mock_data else open_splits(config, open_share)


def _corpora(splits: Splits) -> list[Corpus]:
    return [corpus for members in splits.values() for _, corpus in members]


def _marked(splits: Splits, config: Config) -> Splits:
    """The same with the tokens that rows have beside their text."""
    if not (corpora := _corpora(splits)):
        return splits
    marks: Any = {"marks": bert_tokens(config.tokenizer, corpora)}
    return {
        split: [(weight, dataclasses.replace(corpus, **marks)) for weight, corpus in members]
        for split, members in splits.items()
    }


def whole_samples(
    model: ModelConfig, data: DataConfig, training: TrainingConfig, data_efficiency: DataEfficiencyConfig
) -> list[str]:
    """That a curriculum would cut samples into several; what else is wrong with one, another rule tells."""
    groups = {"model": model, "data": data, "training": training, "data_efficiency": data_efficiency}
    with contextlib.suppress(UserError):
        if describe(SimpleNamespace(**groups))[0].length_metric == RESHAPE:
            return [
                f"the curriculum {RESHAPE} cuts a sample into several, of which many would be padding alone; "
                "take seqlen_truncate with pretrain_bert.py"
            ]
    return []


def make_rows(config: Config, efficiency: DataEfficiency, vocabulary: Vocabulary) -> Rows:
    """How samples become rows."""
    row_format = BertFormat(
        bert=config.bert,
        pair=config.sentences.pair,
        seq_length=config.data.seq_length,
        dropping=efficiency.dropping_layers,
        seed=config.training.seed,
    )
    return Rows(partial(make_batch, row_format=row_format), partial(plain_batch, row_format=row_format))


def build_model(
    config: Config,
    vocab_size: int,
    dropping: tuple[int, ...] = (),
    mesh: Mesh = ONE_RANK,
    stage: Stage | None = None,
) -> Bert:
    """The model, or a stage of it, its weights not yet filled."""
    return Bert(bert_architecture(config, vocab_size), dropping, mesh, stage)


def losses(config: Config) -> dict[str, Callable[[BertInputs], int]]:
    """The losses of the flags, and how many items of a micro-batch each is a sum over."""
    found: dict[str, Callable[[BertInputs], int]] = {MLM_LOSS: lambda inputs: inputs.masked_count}
    if config.sentences.pair:
        found[PAIR_LOSS] = lambda inputs: inputs.pair_count
    return found


def measures(config: Config) -> tuple[str, ...]:
    """What is told of held-out samples."""
    pairs = bool(config.sentences.pair)
    return (MLM_LOSS, *([PAIR_LOSS] * pairs), MLM_ACCURACY, *([PAIR_ACCURACY] * pairs))


def row_losses(
    model: nn.Module, inputs: BertInputs, received: Tensor | None = None
) -> dict[str, Tensor] | Tensor:
    """Losses, right answers and their numbers [rows, 2] of every row, as far as they are computed here; of a
    stage before the last, its hidden states."""
    assert isinstance(model, Bert)
    found = model.scores(inputs, received)
    if isinstance(found, Tensor):
        return found
    tokens, pairs = found
    rows, seen = inputs.tokens.shape[0], inputs.tokens.shape[1] // model.slices.context.size

    def of_rows(index: Tensor, part: Tensor, weights: Tensor) -> Tensor:
        both = torch.stack([part.double(), weights.double()], 1)
        return both.new_zeros((rows, 2)).index_add(0, index // seen, both)

    told = {
        name: of_rows(inputs.masked, part, inputs.weights)
        for name, part in zip((MLM_LOSS, MLM_ACCURACY), tokens)
    }
    if pairs is not None:
        assert inputs.firsts is not None and inputs.pair_weights is not None
        for name, part in zip((PAIR_LOSS, PAIR_ACCURACY), pairs):
            told[name] = of_rows(inputs.firsts, part, inputs.pair_weights)
    return told


BERT_TASK = Task(
    name="bert",
    open_data=open_data,
    open_splits=open_samples,
    make_rows=make_rows,
    build_model=build_model,
    losses=losses,
    known_counts=lambda config, step: None,
    measures=measures,
    row_losses=row_losses,
    row_flops=bert_flops,
    architecture=bert_architecture,
    layer_losses=lambda config: {},
    rules=(of_bert, of_text, whole_samples),
)
