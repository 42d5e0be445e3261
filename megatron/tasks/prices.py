"""What a layout of a run costs, from its configuration: memory, traffic, bubble and FLOPs of a step,
before any rank starts."""

from dataclasses import dataclass

import numpy as np

from megatron.config.config import Config
from megatron.config.parallel import chunks_of, zero_stage
from megatron.model.flops import head_flops, layer_flops
from megatron.model.memory import States, end_of_backward, gathered, kept, returned, states, working
from megatron.model.share import Batch, Share, elements, stage_parameters
from megatron.model.traffic import Traffic, step_traffic
from megatron.parallel.layout import Layout
from megatron.parallel.simulate import PipelineCost, most_bytes, pipeline_cost
from megatron.parallel.stages import Stage, stages_of
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.plan import Step
from megatron.tasks.task import Task


@dataclass(frozen=True)
class RankPrice:
    """Of a rank of the pipeline: its parameters; bytes of `states`; the most of `activations`, which are
    `held` micro-batches' and what is there for a moment; bytes sent in a step."""

    layers: int
    parameters: int
    states: States
    activations: int
    held: int
    traffic: Traffic

    @property
    def total(self) -> int:
        return sum(self.states) + self.activations


def batch_of(config: Config, step: Step) -> Batch:
    """A micro-batch of a step."""
    rows = step.rows * config.training.micro_batch_size // step.batch_size
    return Batch(rows, step.sequence_length, step.kept_length)


def share_of(
    task: Task, config: Config, efficiency: DataEfficiency, vocab_size: int, layout: Layout
) -> Share:
    """A rank's share of the configuration's model; a `vocab_size` of 0 leaves tables and logits out."""
    return Share(
        task.architecture(config, vocab_size),
        layout,
        efficiency.dropping_layers,
        sum_bytes=2 if config.training.grad_reduce_in_bf16 else None,
        defers=config.parallel.pipeline_schedule == "zero-bubble",
        zero_stage=zero_stage(config.parallel),
    )


def prices(config: Config, share: Share, step: Step, device: str) -> list[RankPrice]:
    """A price for every rank of the pipeline in a step whose rows are full; the ranks of the other axes have
    the same."""
    batch, count = batch_of(config, step), micro_batches(config, share.layout, step)
    stages, ranks = stages_of(config.parallel, config.model), share.layout.pipeline
    return [
        _rank_price(config, share, stages[rank::ranks], rank, batch, count, device) for rank in range(ranks)
    ]


def _rank_price(
    config: Config, share: Share, stages: list[Stage], rank: int, batch: Batch, count: int, device: str
) -> RankPrice:
    layout = share.layout
    documents = config.data.reset_attention_mask or config.bert.bert_pack
    parameters = [one for each in stages for one in stage_parameters(share, each)]
    sizes = [kept(share, each, batch, device, documents) for each in stages]
    held, number = most_bytes(config.parallel.pipeline_schedule, rank, layout.pipeline, count, sizes)
    held += returned(share, stages, batch, count)
    moment = max(working(share, each, batch, device, documents) for each in stages)
    end = end_of_backward(share, stages, device)
    return RankPrice(
        layers=sum(len(each.layers) for each in stages),
        parameters=elements(parameters),
        states=states(share, parameters),
        activations=max(held + moment, end) + gathered(share, stages),
        held=number,
        traffic=step_traffic(share, stages, batch, count),
    )


def micro_batches(config: Config, layout: Layout, step: Step) -> int:
    """Micro-batches of a rank in a step."""
    return int(step.batch_size) // (config.training.micro_batch_size * layout.data)


def pipeline_of(config: Config, share: Share, step: Step) -> PipelineCost:
    """What the schedule comes to. A stage takes as long as its FLOPs; the head counts where its vocabulary is
    known."""
    one, lengths = share.architecture, np.array([step.sequence_length, step.kept_length], np.float64)
    head = float(head_flops(one, lengths[0]))
    work = tuple(
        float(layer_flops(one, share.dropping, set(stage.layers), *lengths)) + stage.last * head
        for stage in stages_of(config.parallel, config.model)
    )
    parallel = config.parallel
    return pipeline_cost(
        parallel.pipeline_schedule,
        share.layout.pipeline,
        micro_batches(config, share.layout, step),
        chunks_of(parallel, config.model),
        work,
    )


def step_flops(
    task: Task, config: Config, efficiency: DataEfficiency, vocab_size: int, step: Step
) -> tuple[float, float]:
    """FLOPs of a step: of the model, and of the hardware, which computes some of it again."""
    lengths = (np.array([length]) for length in (step.sequence_length, step.kept_length))
    model, hardware = task.row_flops(config, efficiency, vocab_size)(*lengths)
    return step.rows * float(model[0]), step.rows * float(hardware[0])
