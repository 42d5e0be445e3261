"""A recipe as a smaller run of the same shape. `docs/recipes.md` has the rule in words.

What a YAML file says is scaled, and what the command line says is taken as it stands, also where other flags
follow from it: kept lengths follow a typed sequence length, rates a typed width.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from megatron.base.errors import UserError
from megatron.config.arguments import understand
from megatron.config.foreign import Foreign
from megatron.config.optimizer import SCALING
from megatron.config.parallel import ParallelConfig
from megatron.config.patterns import layer_pattern
from megatron.config.values import convert, parse_list

Values = dict[str, Any]

FULL = "full"
EXPONENT = 5 / 6
"""Of rates by width. Of the sizes of arXiv 2005.14165 the widest is 16 times as wide as the narrowest, and
its rate is a tenth: 16^(5/6) = 10."""
FEWEST = 50
"""Steps between validations, and between checkpoints, are not scaled below this."""
LENGTHS = ("max_position_embeddings", "random_ltd_min", "random_ltd_max", "random_ltd_quantum")
STEPS = ("train_iters", "lr_decay_iters", "lr_warmup_iters", "lr_wsd_decay_iters", "random_ltd_duration")
INTERVALS = ("eval_interval", "save_interval", "save_retain_interval")
SAMPLES = ("train_samples", "lr_decay_samples", "lr_warmup_samples", "lr_wsd_decay_samples")
TOKENS = ("train_tokens", "lr_decay_tokens", "lr_warmup_tokens", "lr_wsd_decay_tokens")
RATES = ("lr", "min_lr", "lr_warmup_init")
INNER_WIDTHS = ("ffn_hidden_size", "moe_ffn_hidden_size", "moe_shared_expert_intermediate_size")
LEFT_OUT = (
    *(field.name for field in dataclasses.fields(ParallelConfig)),
    *("recompute_granularity", "recompute_method", "recompute_num_layers"),
    *("bf16", "fp16", "grad_reduce_in_bf16", *SCALING),
)
"""The layout of ranks, what is computed again, and precision: a scaled run has one rank, or replicas."""
IMAGES = ("img_h", "img_w", "patch_dim")
NEEDED = ("hidden_size", "num_layers", "seq_length", "global_batch_size")


@dataclass(frozen=True)
class Scale:
    """Numbers of the rule. The width becomes √(width · `width`) in heads of `head`, the depth √(depth ·
    `depth`). Lengths are divided by `length`, or images by `image` and patches by `patch`; batches by
    `batch`, steps by `steps`. A micro-batch has at most `tokens` tokens. The number of experts is raised to
    the power of `experts`."""

    width: int
    head: int
    depth: float
    length: int
    image: int
    patch: int
    batch: int
    steps: int
    tokens: int
    experts: float
    bf16: bool


SCALES = {
    "mini": Scale(8, 16, 1.5, 8, image=7, patch=4, batch=64, steps=200, tokens=1024, experts=0.5, bf16=False),
    "small": Scale(128, 64, 6, 2, image=2, patch=2, batch=8, steps=10, tokens=16384, experts=1, bf16=True),
}
"""Two cores of a CPU, and one GPU."""


def scaled(values: Values, typed: Values) -> tuple[Values, list[str]]:
    """What a file's values are at --scale, and what is wrong; `typed`: the values of the command line."""
    both = values | typed
    name = both["scale"]
    if name == FULL or None in both.values():  # of a refused value it is told already
        return values, []
    if not both.get("config"):
        return values, [f"--scale {name} scales what a --config file says, and none is given; give one"]
    if both.get("data_efficiency_config"):
        return values, [f"--scale {name} scales no DeepSpeed JSON; give --curriculum and --random-ltd"]
    if missing := [one for one in NEEDED if one not in _with_length(values)]:
        words = ", ".join("--" + one.replace("_", "-") for one in missing)
        return values, [f"--scale {name} scales {words}, which the file does not say; say it there"]
    return _rewritten(values, SCALES[name], typed), []


def _rewritten(values: Values, scale: Scale, typed: Values) -> Values:
    """All values at a scale; those that are typed count where others follow from them."""
    images = "seq_length" not in values
    values = _with_length(values)
    new = {name: value for name, value in values.items() if name not in LEFT_OUT}
    new |= _shape(values, scale, typed)
    length, batch = values["seq_length"], values["global_batch_size"]
    steps = (values | typed).get("scale_steps") or scale.steps
    shorter, smaller = new["seq_length"] / length, new["global_batch_size"] / batch
    narrower = new["hidden_size"] / values["hidden_size"]
    if (values | typed).get("random_ltd"):
        new = {"random_ltd_min": 128, "random_ltd_quantum": 16} | new
    _apply(new, LENGTHS, lambda value: _at_least_one(value * shorter))
    _apply(new, STEPS, lambda value: _at_least_one(value / steps))
    _apply(new, INTERVALS, lambda value: max(round(value / steps), min(value, FEWEST)))
    _apply(new, SAMPLES, lambda value: _at_least_one(value * smaller / steps))
    _apply(new, TOKENS, lambda value: _at_least_one(value * smaller * shorter / steps))
    _apply(new, RATES, lambda value: _three_digits(value / narrower**EXPONENT))
    _apply(new, INNER_WIDTHS, lambda value: _multiple(value * narrower, scale.head))
    _apply(new, ("init_method_std",), lambda value: _three_digits(value / math.sqrt(narrower)))
    if new.get("curriculum"):
        new["curriculum"] = tuple(_curriculum(one, shorter, steps) for one in new["curriculum"])
    if ramp := new.get("rampup_batch_size"):
        parts = (_at_least_one(one * smaller) for one in ramp[:-1])
        new["rampup_batch_size"] = (*parts, round(ramp[-1] * smaller / steps))
    new |= {"bf16": True} if scale.bf16 else {}
    return {name: value for name, value in new.items() if not images or name != "seq_length"}


def _with_length(values: Values) -> Values:
    """The values with the length of rows, which of images is the number of their patches and one more."""
    sides = [values.get(name, 0) for name in IMAGES]
    if "seq_length" in values or not all(sides):
        return values
    return values | {"seq_length": (sides[0] // sides[2]) * (sides[1] // sides[2]) + 1}


def _images(values: Values, scale: Scale, typed: Values) -> Values:
    """Sides of images and of patches at a scale, of what has them, and the length that follows."""
    divided = dict(zip(IMAGES, (scale.image, scale.image, scale.patch)))
    sides = {name: max(values[name] // by, 1) for name, by in divided.items() if name in values}
    found = _with_length(sides | {name: typed[name] for name in sides if name in typed})
    return found if len(sides) == len(IMAGES) else {}


def _shape(values: Values, scale: Scale, typed: Values) -> Values:
    """Width, heads, depth, experts, length and batches at a scale."""
    old: list[int] = [values[name] for name in NEEDED]
    images = _images(values, scale, typed)
    rule = (
        min(_multiple(math.sqrt(old[0] * scale.width), scale.head), old[0]),
        max(min(_multiple(math.sqrt(old[1] * scale.depth), 2), old[1]), min(old[1], 4)),
        images.get("seq_length", max(round(old[2] / scale.length), 1)),
        max(round(old[3] / scale.batch), min(old[3], 4)),
    )
    shape: Values = {name: typed.get(name, value) for name, value in zip(NEEDED, rule)}
    width, depth, length, batch = shape.values()
    shape |= images
    shape["num_attention_heads"] = max(width // scale.head, 1)
    half, most = max(batch // 2, 1), max(scale.tokens // length, 1)
    shape["micro_batch_size"] = max(one for one in range(1, min(half, most) + 1) if half % one == 0)
    if values.get("num_experts", 1) > 1:
        shape["num_experts"] = 2 ** round(math.log2(values["num_experts"]) * scale.experts)
        shape["moe_layer_freq"] = _pattern(values.get("moe_layer_freq", "1"), values["num_layers"], depth)
    if text := values.get("random_ltd_layers"):
        shape["random_ltd_layers"] = _places(text, values["num_layers"], depth)
    return shape


def _pattern(text: str, layers: int, depth: int) -> str:
    """The first part of a pattern of layers; a number, or what is no pattern, stays."""
    try:
        pattern = layer_pattern(text, layers, "--moe-layer-freq", "")
    except UserError:
        return text
    return str(pattern[:depth]).replace(" ", "") if isinstance(pattern, list) else text


def _places(text: str, layers: int, depth: int) -> str:
    """Layers by their numbers, where those in the middle are left out; what is no list stays."""
    try:
        named = parse_list(text)
    except ValueError:
        return text
    if max(named) >= layers:
        return text
    before = [place if 2 * place < depth else place + layers - depth for place in range(depth)]
    found = [place for place in range(depth) if before[place] in named]
    return ",".join(map(str, found)) or text


def _curriculum(text: str, shorter: float, steps: float) -> str:
    """A metric with its durations and, where they are no percentiles, its difficulties at a scale."""
    name, colon, rest = text.partition(":")
    parts = [part.partition("=") for part in rest.split(",") if part]
    pairs = {key.strip(): value.strip() for key, _, value in parts}
    keys = {"duration": 1 / steps, "until": 1 / steps}
    if pairs.get("difficulty") != "percentile":
        keys |= dict.fromkeys(("min", "max", "values", "quantum"), shorter)
    pairs |= {key: _numbers(pairs[key], factor) for key, factor in keys.items() if key in pairs}
    return name + colon + ",".join(f"{key}={value}" for key, value in pairs.items())


def _numbers(text: str, factor: float) -> str:
    """Numbers apart by slashes at a scale; what is none stays, and is told where it is read."""
    try:
        return "/".join(str(_at_least_one(convert(one, int) * factor)) for one in text.split("/"))
    except (ValueError, OverflowError):
        return text


def _apply(values: Values, names: Collection[str], rule: Callable[[Any], Any]) -> None:
    """Rewrite those of the values that are given, and not 0."""
    values |= {name: rule(values[name]) for name in names if values.get(name)}


def _at_least_one(value: float) -> int:
    return max(round(value), 1)


def _multiple(value: float, of: int) -> int:
    """The nearest multiple that is not 0."""
    return max(round(value / of), 1) * of


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")


def scale_notes(options: type, argv: list[str], foreign: Mapping[str, Foreign]) -> list[str]:
    """What scaling has changed of a command line's run, as a note of several lines; none at full scale."""
    after = understand(options, argv, foreign=foreign)[0]
    if after.get("scale", FULL) == FULL:
        return []
    before = understand(options, [*argv, "--scale", FULL], foreign=foreign)[0]
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    lines = [
        f"  {name:<26} {_shown(one)} → {_shown(other)}"
        for name in changed
        if name not in ("scale", "config")
        for one, other in _pairs(before.get(name), after.get(name))
    ]
    head = f"--scale {after['scale']} changes what {after['config']} says:"
    return ["\n".join([head, *lines, _tokens_line(before, after)])]


def _pairs(one: Any, other: Any) -> list[tuple[Any, Any]]:
    """Two values, or what lies in them."""
    both = isinstance(one, tuple) and isinstance(other, tuple)
    return list(zip(one, other)) if both else [(one, other)]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "not given" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _tokens_line(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Tokens for each weight of the layers, 12 · depth · width², where every one computes every token."""
    ratios = [_tokens(one) / (12 * one["num_layers"] * one["hidden_size"] ** 2) for one in (before, after)]
    return f"  tokens for a weight of the dense layers: {ratios[0]:.3g} → {ratios[1]:.3g}"


def _tokens(values: Mapping[str, Any]) -> float:
    """Tokens of the run, by whichever of its stops is given."""
    samples = values.get("train_samples") or (values.get("train_iters") or 0) * values["global_batch_size"]
    return values.get("train_tokens") or samples * _with_length(dict(values))["seq_length"]
