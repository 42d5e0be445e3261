"""The flags of finetuning an encoder on labelled texts, and the rules between them."""

import re
from dataclasses import dataclass, fields

from megatron.base.errors import UserError, collect_problems
from megatron.config.bert import HEADS
from megatron.config.flags import NEWEST, flag, flags_of, spelling
from megatron.config.logging import LoggingConfig
from megatron.config.optimizer import OptimizerConfig
from megatron.config.parallel import ParallelConfig
from megatron.config.tokenizer import TokenizerOptions
from megatron.config.training import UNITS, TrainingConfig

OWN = ("classification", "regression")
"""What labels of the user's own files can be."""
GLUE = ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE", "WNLI")
LM = "lm"
"""Language modelling, whose flags are others: megatron/config/language_model.py."""
MOST_SEEDS = 1000


@dataclass(frozen=True)
class FinetuningConfig:
    task: str = flag(
        help="a task of GLUE, or what the labels of your own files are; lm: see --task lm --help",
        choices=(*GLUE, *OWN, LM),
    )
    load: str = flag(
        help="folder of checkpoints of an encoder, or of a Hugging Face BERT or ModernBERT", metavar="FOLDER"
    )
    save: str = flag(help="folder for results, predictions and the log", metavar="FOLDER")
    data_path: str | None = flag(None, "folder of a GLUE task, as GLUE packs it", metavar="FOLDER")
    train_file: str | None = flag(
        None, "examples of your own: .jsonl, or .tsv with a line of column names", metavar="FILE"
    )
    valid_file: str | None = flag(None, "the same, for the metrics", metavar="FILE")
    test_file: str | None = flag(None, "the same, to predict; labels may be missing", metavar="FILE")
    text_column: str = flag("text", "column, or key, of the text")
    second_text_column: str | None = flag(None, "of the second text of a pair")
    label_column: str = flag("label", "of the label")
    epochs: float = flag(3.0, "passes over the training examples, where no --train-* says otherwise", above=0)
    seq_length: int | None = flag(None, "longest row in tokens; what the model was trained with", at_least=5)
    hidden_dropout: float | None = flag(None, "dropout; that of the checkpoint", at_least=0, below=1)
    attention_dropout: float | None = flag(
        None, "dropout of attention; that of the checkpoint", at_least=0, below=1
    )
    attention_backend: str = flag(
        "auto",
        "auto: fused, or explicit where attention dropout is not 0",
        choices=("auto", "flash", "fused", "unfused", "local"),
    )
    classifier_head: str | None = flag(
        None,
        "before the last matrix: BERT's pooler; or ModernBERT's matrix, activation and norm, of the first "
        "token (cls) or of the mean over all; that of the checkpoint",
        choices=HEADS,
    )
    ckpt_step: int | None = flag(None, "step of the checkpoint to load; the newest", otherwise=NEWEST)
    random_init: bool = flag(False, "the same model from random weights, to compare with")
    save_model: bool = flag(False, "also save the finetuned model, in the folder model of --save")
    sweep_lr: str | None = flag(None, "a run for every learning rate, such as 2e-5,3e-5", metavar="X,X")
    seeds: str | None = flag(None, "a run for every seed, such as 1234-1238 or 1,2,5", metavar="N-N")
    parallel: int | None = flag(
        None, "runs of a sweep at a time; cores / threads of a run, or GPUs", at_least=1
    )


WARMUP, BATCH = 0.1, 32
"""What is usual in finetuning, where pretraining has other values or none (arXiv 2212.03597, A.2)."""


@dataclass(frozen=True)
class OfTraining(TrainingConfig):
    micro_batch_size: int = flag(
        None, f"samples of one forward pass on one rank; its share of the global batch, or of {BATCH}"
    )
    skip_train: bool = flag(False, "no training: measure and predict with the finetuned model of --load")
    dry_run: bool = flag(False)


@dataclass(frozen=True)
class OfOptimizer(OptimizerConfig):
    lr: float = flag(2e-5, "peak learning rate", above=0)
    weight_decay: float = flag(0.1, "decay of matrices; biases and norms have none", at_least=0)
    lr_warmup_fraction: float | None = flag(
        None, f"linear warm-up over this share of the decay; {WARMUP}", at_least=0, below=1
    )


@dataclass(frozen=True)
class OfParallel(ParallelConfig):
    """Without help are those that finetuning refuses."""

    context_parallel_size: int = flag(1)
    cp_comm_type: tuple[str, ...] = flag(("p2p",))
    expert_model_parallel_size: int = flag(1)
    expert_tensor_parallel_size: int = flag(None)
    pipeline_model_parallel_size: int = flag(1)
    num_virtual_stages_per_pipeline_rank: int | None = flag(None)
    num_layers_per_virtual_pipeline_stage: int | None = flag(None)
    decoder_first_pipeline_num_layers: int | None = flag(None)
    decoder_last_pipeline_num_layers: int | None = flag(None)
    account_for_embedding_in_pipeline_split: bool = flag(False)
    account_for_loss_in_pipeline_split: bool = flag(False)
    pipeline_model_parallel_layout: str | None = flag(None)
    pipeline_schedule: str = flag(None)
    use_tp_pp_dp_mapping: bool = flag(False)


@dataclass(frozen=True)
class FinetuneFlags:
    """What finetune.py takes: the model's own flags are those of the checkpoint."""

    finetuning: FinetuningConfig
    training: OfTraining
    optimizer: OfOptimizer
    parallel: OfParallel
    logging: LoggingConfig
    tokenizer: TokenizerOptions
    config: str | None = flag(
        None,
        "YAML file of flags; flags on the command line win",
        metavar="FILE",
        resume="free",
        of_several="write a file that says include: [FILE, FILE]",
    )


def with_defaults(values: dict[str, object], replicas: int) -> dict[str, object]:
    """The given values, and what is usual in finetuning: batches of 32, and a warm-up of a tenth."""
    names = {field.name: field.default for field in fields(OfOptimizer)}
    found: dict[str, object] = {name: names[name] for name in ("lr", "weight_decay")} | values
    if not any(f"lr_warmup_{unit}" in values for unit in (*UNITS, "fraction")):
        found["lr_warmup_fraction"] = WARMUP
    if "micro_batch_size" not in values:
        size = values.get("global_batch_size") or BATCH
        found["global_batch_size"] = size
        found["micro_batch_size"] = max(int(str(size)) // replicas, 1)
    return found


def rates_of(text: str) -> tuple[float, ...]:
    """The learning rates of --sweep-lr; UserError where the text is none."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < rate < 1e6 for rate in found):
        raise UserError(
            f"--sweep-lr {text}: write rates above 0 and below 1e6 with commas between, such as 2e-5,3e-5"
        )
    return tuple(dict.fromkeys(found))


def seeds_of(text: str) -> tuple[int, ...]:
    """The seeds of --seeds; UserError where the text is none."""
    wrong = UserError(
        f"--seeds {text}: write at most {MOST_SEEDS} numbers and ranges such as 1234-1238 or 1,2,5"
    )
    found: list[int] = []
    for part in text.split(","):
        bounds = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", part.strip(), re.ASCII)
        if bounds is None:
            raise wrong
        first, last = int(bounds[1]), int(bounds[2] or bounds[1])
        if not 0 <= last - first < MOST_SEEDS:
            raise wrong
        found += range(first, last + 1)
    if len(found) > MOST_SEEDS:
        raise wrong
    return tuple(dict.fromkeys(found))


def of_files(finetuning: FinetuningConfig) -> list[str]:
    """Which files a task needs."""
    one, found = finetuning, list[str]()
    if one.task == LM:
        return [f"--task {LM}: stands in a file, and is read on the command line alone; give it there"]
    own = [spelling(name) for name in ("train_file", "valid_file", "test_file") if getattr(one, name)]
    if one.task in OWN:
        if one.data_path:
            found.append(f"--data-path is of GLUE's tasks; give --train-file with --task {one.task}")
        if not one.train_file or not one.valid_file:
            found.append(f"--task {one.task} needs --train-file and --valid-file")
        files = (("train", one.train_file), ("valid", one.valid_file), ("test", one.test_file))
        found += [
            f"--{name}-file {path}: is read by its ending: rename JSON lines to .jsonl, and columns parted "
            "by tabs to .tsv; pandas makes JSON lines of other tables by to_json(FILE, orient='records', "
            "lines=True)"
            for name, path in files
            if path and not path.endswith((".jsonl", ".tsv"))
        ]
        return found
    if own:
        found.append(f"{' and '.join(own)}: belong to --task {' and '.join(OWN)}; give --data-path alone")
    if not one.data_path:
        found.append(f"--task {one.task} needs --data-path, the folder of its files")
    return found


def of_sweeps(finetuning: FinetuningConfig) -> list[str]:
    """What is wrong with the texts of a sweep."""
    found: list[str] = []
    with collect_problems(found):
        rates_of(finetuning.sweep_lr or "1")
    with collect_problems(found):
        seeds_of(finetuning.seeds or "1")
    if finetuning.parallel and not (finetuning.sweep_lr or finetuning.seeds):
        found.append("--parallel is of sweeps; give --sweep-lr or --seeds, too")
    return found


def refused(values: dict[str, object]) -> tuple[dict[str, object], list[str]]:
    """The given values without those of flags that finetuning does not have, and what is said of them."""
    hidden = {
        one.name: one.field.default for one in flags_of(FinetuneFlags) if not one.field.metadata["help"]
    }
    mine = {name: value for name, value in values.items() if name not in hidden}
    given = [name for name in values if name in hidden and values[name] != hidden[name]]
    shared = [spelling(name) for name in given if name != "dry_run"]
    found = ["--dry-run: belongs to pretraining; leave it out"] if "dry_run" in given else []
    if shared:
        found.append(
            f"{', '.join(shared)}: finetuning shares batches and matrices; leave it out, and use data and "
            "tensor parallelism"
        )
    return mine, found


def of_skipping(values: dict[str, object]) -> list[str]:
    """What does not go with --skip-train."""
    names = ("random_init", "save_model", "sweep_lr", "seeds")
    given = [spelling(name) for name in names if values.get(name)]
    if not values.get("skip_train") or not given:
        return []
    return [f"--skip-train measures a finetuned model as it is; leave {' and '.join(given)} out"]


def of_positions(values: dict[str, object], known: object) -> list[str]:
    """Whether rows fit into the positions that a model has learned, None where any will do."""
    length = values.get("seq_length")
    if not isinstance(length, int) or not isinstance(known, int) or length <= known:
        return []
    return [f"--seq-length {length}: the model of --load knows {known} positions; give at most {known}"]


RULES = (of_files, of_sweeps)
