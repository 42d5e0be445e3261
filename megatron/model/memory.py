"""What a rank holds, in closed form: weights, gradients, moments, what layers keep for their backward pass,
and what is there beside it for a moment. It follows what the code of this folder does, tensor by tensor.
Without explicit attention a layer keeps what arXiv 2205.05198 counts, equation 2: with tensor ranks that
share no tokens to the byte, with those that do two gathered inputs more.

Bytes that no tensor of PyTorch has are not counted: buffers of NCCL, kernels' own, the allocator's rest.
"""

from collections.abc import Iterable
from typing import NamedTuple

from megatron.model.attention import explicit_in_training
from megatron.model.share import (
    Batch,
    Parameters,
    Share,
    elements,
    layer_parameters,
    routed_rows,
    stage_layers,
    stage_parameters,
    told_tokens,
)
from megatron.model.stack import runs_of
from megatron.parallel.cross_entropy import CHUNK_BYTES, LEAST_ROWS
from megatron.parallel.data_parallel import BUCKET_ELEMENTS
from megatron.parallel.stages import Stage
from megatron.parallel.zero import UNDERWAY

HASH_BYTES = 14
"""Of a score, while it is told by a hash whether dropout takes it: three int32 and two bools."""


class States(NamedTuple):
    """Bytes that are there between steps."""

    weights: int
    gradients: int
    moments: int


def states(share: Share, parameters: Iterable[Parameters]) -> States:
    """Bytes of a rank's parameters, their gradients and their two moments. Ranks with the same weights share
    the moments (ZeRO-1, arXiv 1910.02054), the gradients and between steps the weights, too (2 and 3)."""
    parameters, stage = list(parameters), share.zero_stage
    whole = share.weight_bytes * elements(parameters)
    part = share.weight_bytes * sum(one.share(share.sharing(one)) for one in parameters)
    shared = part if stage >= 2 else whole
    return States(shared, shared, 2 * (part if stage >= 1 else whole))


class Kept(NamedTuple):
    """Bytes that a stage keeps of a micro-batch: until the gradients of its weights are there, and until
    those of its result are: what is sent to the next stage, or what the head has made."""

    layers: int
    result: int


def kept(share: Share, stage: Stage, batch: Batch, device: str = "cpu", documents: bool = False) -> Kept:
    """What is kept of a micro-batch from its forward to its backward pass."""
    one = share.architecture
    total = sum(size for size, _ in _runs(share, stage, batch, device, documents))
    if stage.first and one.hidden_dropout:
        total += batch.rows * share.held(batch.length) * one.hidden_size
    if stage.first and one.pictures is not None:
        total += batch.rows * (batch.length - 1) * one.pictures.patch_size * (share.element + 1)
    sent = batch.rows * share.held(batch.length) * _width(share)
    return Kept(total, _head_kept(share, batch, device) if stage.last else sent)


def working(share: Share, stage: Stage, batch: Batch, device: str = "cpu", documents: bool = False) -> int:
    """The most bytes beside what is kept of a micro-batch, in its forward or backward pass, less what is not
    there yet or has been given back by then."""
    runs = _runs(share, stage, batch, device, documents)
    head = _head_kept(share, batch, device) if stage.last else 0
    both = stage.first and stage.last and share.architecture.tied_head  # whose gradients wait for each other
    given_back = head - (_table(share) if both else 0)
    most = _head_working(share, batch, device) if stage.last else 0
    later = sum(size for size, _ in runs)
    sizes = _sizes(share, stage, batch, device, documents)
    asks = {length: _attention_working(share, batch.rows, length) for length in batch[1:]}
    kinds = {number: (_length(share, batch, number), share.mixed(number)) for number in stage.layers}
    backs = {kind: _mlp_working(share, batch.rows, *kind, device) for kind in set(kinds.values())}
    for size, numbers in runs:
        lengths = [_length(share, batch, number) for number in numbers]
        again, length = _recomputed(share, numbers), max(lengths)
        inside = sum(sizes[number] for number in numbers) if again else 0
        inside -= batch.rows * share.held(batch.length) * _width(share) if again else 0
        attention = asks[length]
        most = max(most, attention - later - head)
        if attention and (again or share.architecture.recompute_attention):
            repeated = inside - sizes[numbers[-1]] if again else -size
            arriving = batch.rows * share.held(length) * _width(share)
            most = max(most, size - later + repeated + attention + arriving - given_back)
        back = max(backs[kinds[number]] for number in numbers)
        most = max(most, size - later + inside + back - given_back)
        later -= size
    return max(most, 0)


def returned(share: Share, stages: list[Stage], batch: Batch, micro_batches: int) -> int:
    """Bytes of gradients on their way to the stages before: the engine keeps the last ones."""
    count = min(micro_batches * len(stages), (len(stages) + 1) * share.layout.pipeline + 1)
    going = any(not stage.first for stage in stages)
    return going * count * batch.rows * share.held(batch.length) * _width(share)


def end_of_backward(share: Share, stages: list[Stage], device: str = "cpu") -> int:
    """Bytes beside weights, gradients and moments where nothing is kept: the gradients of a table that come
    from both of its ends; or copies of gradients in which they are summed; or the buckets of ZeRO-1 that are
    packed, of which gloo makes a copy, or arrive, with this rank's part."""
    tied = share.architecture.tied_head and any(stage.first and stage.last for stage in stages)
    table = _table(share) * (2 if tied else 1) if any(stage.first for stage in stages) else 0
    parameters = [one for stage in stages for one in _shared(share, stage_parameters(share, stage))]
    largest = max((one.rows * one.columns for one in parameters), default=0)
    bucket = min(max(BUCKET_ELEMENTS, largest), elements(parameters))
    ranks = share.layout.sharing
    if share.zero_stage == 1 and ranks > 1:
        underway = min(UNDERWAY * bucket, elements(parameters))
        packed = (2 if device == "cpu" else 1) * underway * share.summed
        return max(table, packed, underway * (ranks + 1) // ranks * share.weight_bytes)
    copied = share.summed != share.weight_bytes and share.layout.data * share.layout.context > 1
    return max(table, copied * elements(parameters) * share.summed)


def _shared(share: Share, parameters: Iterable[Parameters]) -> list[Parameters]:
    """Those that several ranks would hold alike."""
    return [one for one in parameters if share.sharing(one) > 1]


def gathered(share: Share, stages: list[Stage]) -> int:
    """Bytes of whole weights and gradients beside a rank's own of ZeRO-2 and 3: the whole stage or two of its
    layers, of which one is gathered ahead, then tables and last norm, and the gradients of one unit, which
    are packed to be summed."""
    if not share.gathers:
        return 0
    layers = sum(elements(_shared(share, stage_layers(share, stage))) for stage in stages)
    ends = sum(elements(_shared(share, stage_parameters(share, stage))) for stage in stages) - layers
    kinds = {share.mixed(number) for stage in stages for number in stage.layers}
    layer = max((elements(_shared(share, layer_parameters(share, mixed=one))) for one in kinds), default=0)
    whole = layers if share.zero_stage == 2 else min(layers, 2 * layer)
    gradients = max(layer * (share.element + share.weight_bytes), 2 * ends * share.weight_bytes)
    return whole * share.element + ends * share.weight_bytes + gradients


def layer_kept(
    share: Share, rows: int, length: int, device: str = "cpu", documents: bool = False, mixed: bool = False
) -> int:
    """Bytes that a layer keeps of rows of `length` tokens."""
    one, element = share.architecture, share.element
    tokens, held = rows * share.computed(length), rows * share.held(length)
    found = 2 * _norm_kept(share, held, device) + 2 * tokens * one.hidden_size * element
    found += _attention_kept(share, rows, length, documents)
    found += _mixture_kept(share, rows, length) if mixed else _inner_kept(share, tokens, share.inner)
    if one.hidden_dropout:
        found += 2 * held * one.hidden_size
    return found + _casts(share, mixed)


def _inner_kept(share: Share, tokens: int, inner: int) -> int:
    """Between the matrices of an MLP."""
    return (4 if share.architecture.gated else 2) * tokens * inner * share.element


def _mixture_kept(share: Share, rows: int, length: int) -> int:
    """Of each token's experts: what goes in and comes out, sorted and not, what is inside; and the scores
    and choices of routing, a few numbers an expert. Experts are taken to have equal loads."""
    mixture, element = share.architecture.mixture, share.element
    assert mixture is not None
    routed = routed_rows(share, rows, length)
    found = _inner_kept(share, routed, mixture.inner // share.layout.expert_matrices)
    found += 2 * routed * share.architecture.hidden_size * element
    found += 4 * rows * share.held(length) * mixture.experts * 4
    if mixture.shared:
        tokens = rows * share.computed(length)
        found += _inner_kept(share, tokens, mixture.shared // share.layout.tensor)
    return found


def _width(share: Share) -> int:
    """Bytes of the hidden states of a token."""
    return share.architecture.hidden_size * share.element


def _length(share: Share, batch: Batch, layer: int) -> int:
    return batch.kept_length if layer in share.dropping else batch.length


def _recomputed(share: Share, numbers: list[int]) -> bool:
    return numbers[0] in share.architecture.recomputed_layers


def _runs(
    share: Share, stage: Stage, batch: Batch, device: str, documents: bool
) -> list[tuple[int, list[int]]]:
    """The layers of a stage by runs that are computed again together, and what each run keeps."""
    one, found = share.architecture, []
    inputs = batch.rows * share.held(batch.length) * _width(share)
    sizes = _sizes(share, stage, batch, device, documents)
    gathers = 0 if share.shares_tokens or share.layout.context > 1 else inputs  # PyTorch's gather keeps it
    for numbers, again in runs_of(stage.layers, one.recomputed_layers, one.recompute_run):
        drops = sum(number in share.dropping for number in numbers)
        size = inputs if again else sum(sizes[number] for number in numbers) + drops * gathers
        found.append((size, numbers))
    return found


def _sizes(share: Share, stage: Stage, batch: Batch, device: str, documents: bool) -> dict[int, int]:
    """Bytes that each layer of a stage keeps; layers of a kind keep as much."""
    near = share.architecture.near_layers  # each of which has the masks of its window
    kinds = {
        number: (_length(share, batch, number), documents or number in near, share.mixed(number))
        for number in stage.layers
    }
    sizes = {kind: layer_kept(share, batch.rows, kind[0], device, *kind[1:]) for kind in set(kinds.values())}
    return {number: sizes[kind] for number, kind in kinds.items()}


def _norm_kept(share: Share, tokens: int, device: str) -> int:
    """Its input and the statistics of a token. On a CPU RMSNorm is written out in at least fp32."""
    hidden, element = share.architecture.hidden_size, share.element
    if share.architecture.normalization == "RMSNorm" and device == "cpu":
        return tokens * (2 * hidden * max(element, 4) + max(element, 4))
    return tokens * (hidden * element + 8)


def _casts(share: Share, mixed: bool = False) -> int:
    """Copies of the weights in the precision of the hidden states, which every micro-batch has of its own."""
    if share.element == share.weight_bytes or share.defers:
        return 0
    return share.element * sum(
        one.elements
        for one in layer_parameters(share, mixed=mixed)
        if one.columns > 1 and not (share.gathers and share.sharing(one) > 1)
    )


def _scores(share: Share, length: int) -> int:
    """Pairs of a query and a key that are computed here, of one row and head."""
    ranks, way = share.layout.context, share.layout.context_way
    if ranks == 1 or way == "a2a":
        return share.computed(length) * length
    chunk = length // (2 * ranks)
    return chunk * chunk * (2 * ranks + 1)


def _round(share: Share) -> bool:
    """Whether keys and values go round."""
    return share.layout.context > 1 and share.layout.context_way == "p2p"


def _attention_kept(share: Share, rows: int, length: int, documents: bool) -> int:
    """Query, key, value and result, and what the kernel or the explicit weights need."""
    one, element, context = share.architecture, share.element, share.layout.context
    tokens, gathers = rows * share.computed(length), context > 1 and share.layout.context_way == "allgather"
    keys = share.keys if share.keys == share.queries or one.num_query_groups == one.num_attention_heads else 0
    width = keys or share.queries  # keys of a group are repeated for its heads
    found = element * (share.queries * tokens + 2 * width * tokens * (context if gathers else 1))
    result, pairs = element * share.queries * tokens, rows * share.heads * _scores(share, length)
    if _round(share):
        return found + 2 * result + max(element, 4) * share.heads * tokens
    if explicit_in_training(one):
        if one.recompute_attention:
            return found + result
        used = 1 + element if one.attention_dropout else element if element < 4 else 0
        each = max(element, 4) + used
        masks = rows if documents else 0 if one.encoder else 1
        return found + result + each * pairs + _scores(share, length) * masks
    copies = 2 if context > 1 or one.position_embedding_type == "rope" else 1
    mask = _scores(share, length) * (rows if documents else 1) if documents or gathers else 0
    return found + copies * result + 4 * share.heads * tokens + element * mask


def _attention_working(share: Share, rows: int, length: int) -> int:
    """Bytes of a layer's forward pass where its explicit weights are told, those that it keeps among
    them."""
    one, element = share.architecture, share.element
    if not explicit_in_training(one) or _round(share):
        return 0
    each = element + max(element, 4) + (HASH_BYTES if one.attention_dropout else 0)
    each += element if element < 4 else 0
    inputs = rows * share.computed(length) * (2 * one.hidden_size + 3 * share.queries) * element
    return inputs + rows * share.heads * _scores(share, length) * each


def _mlp_working(share: Share, rows: int, length: int, mixed: bool, device: str) -> int:
    """Bytes of the last matrix's backward pass: the gradients of its result, of its input and of itself; or
    those of the activation. Of experts all matrices are one, whose gradient grows in place where it can, and
    its input are the tokens of each."""
    one, element = share.architecture, share.element
    tokens = rows * share.computed(length)
    arriving = rows * share.held(length) * one.hidden_size * element * (2 if one.hidden_dropout else 1)
    if share.shares_tokens:
        arriving += tokens * one.hidden_size * element
    inside, matrix = tokens * share.inner * element, share.inner * one.hidden_size * element
    if mixed and (mixture := one.mixture) is not None:
        inner = mixture.inner // share.layout.expert_matrices
        inside = routed_rows(share, rows, length) * inner * element
        in_place = device == "cpu" and element == share.weight_bytes and not share.gathers
        matrix = mixture.experts // share.layout.expert * inner * one.hidden_size * element * (not in_place)
    more = 3 if one.activation == "squared_relu" else 2 if one.gated else 1
    return arriving + max(inside + matrix, more * inside)


def _table(share: Share) -> int:
    """Bytes of the gradients of a table."""
    return share.vocabulary * share.architecture.hidden_size * share.weight_bytes


def _head_kept(share: Share, batch: Batch, device: str) -> int:
    """The last norm's, and the gradients of hidden states and head, which the forward pass makes; of an
    encoder's transform its tokens, what comes of its matrix and what goes into its norm, and the gradients of
    the logits' bias."""
    one, held = share.architecture, batch.rows * share.held(batch.length)
    if one.pictures is not None:  # of [CLS] alone, with its logits and their logarithms
        of_images = batch.rows * (2 * one.vocab_size * max(share.element, 4) + _width(share))
        return _norm_kept(share, held, device) + of_images
    told = told_tokens(share, batch.rows * share.computed(batch.length))
    found = _norm_kept(share, held, device) + told * _width(share) + _table(share)
    if not one.encoder:
        return found
    matrices = 2 if one.pair_head else 1
    casts = matrices * one.hidden_size * _width(share) if share.element < share.weight_bytes else 0
    transform = 2 * told * _width(share) + _norm_kept(share, told, device)
    return found + transform + share.vocabulary * share.weight_bytes + casts


def _head_working(share: Share, batch: Batch, device: str) -> int:
    """The logits of a chunk beside the hidden states; where these are of lower precision, a copy of the head
    and a product, too. A GPU makes new gradients for those of the loss."""
    one, element = share.architecture, share.element
    if one.pictures is not None:
        held = batch.rows * share.held(batch.length) * _width(share)
        return 2 * held + batch.rows * one.vocab_size * max(element, 4)
    tokens, vocabulary = batch.rows * share.computed(batch.length), max(share.vocabulary, 1)
    told = told_tokens(share, tokens)
    rows = min(told, max(CHUNK_BYTES.get(device, 1 << 25) // (vocabulary * 4), LEAST_ROWS))
    logits = rows * vocabulary * (max(element, 4) + (element if element < share.weight_bytes else 0))
    if device != "cpu":
        logits += rows * vocabulary * max(element, 4)
    head = 2 * share.vocabulary * one.hidden_size * element if element < share.weight_bytes else 0
    held = batch.rows * share.held(batch.length) * one.hidden_size * element
    states = held + (tokens * one.hidden_size * element if share.shares_tokens else 0)
    again = _table(share) + told * one.hidden_size * element if device != "cpu" else 0
    return max(states + logits + head, again)
