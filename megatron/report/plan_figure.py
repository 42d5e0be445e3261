"""The plan of a run as one figure."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from megatron.base.units import axis_label, axis_scale, exact, power_of_ten, short
from megatron.report.figures import FAINT, Entry, colour_of, frame, panels, thin
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.plan import Plan

Draw = Callable[[Axes], None]


def plan_figure(plan: Plan, efficiency: DataEfficiency, num_layers: int) -> Figure:
    """Lengths, admitted difficulty, tokens, learning rate and layer tokens over the run; panels without
    content are left out."""
    view = _View(plan, num_layers)
    draws: list[Draw] = [view.lengths]
    if plan.caps:
        draws.append(
            lambda axes: view.caps(axes, {metric.name: metric.difficulty for metric in efficiency.metrics})
        )
    draws += [view.tokens, view.learning_rate, view.layer_tokens]
    if efficiency.random_ltd:
        draws.append(view.saved)
    if len(draws) % 2 or plan.batch_size[0] != plan.batch_size[-1]:
        draws.append(view.batch_size)
    columns = (len(draws) + 1) // 2
    figure, axes = panels(
        2, columns, f"{exact(plan.steps)} steps, {short(plan.consumed_tokens[-1])} effective tokens"
    )
    for draw, place in zip(draws, axes):
        draw(place)
    for place in axes[len(draws) :]:
        place.set_visible(False)
    return figure


class _View:
    """A plan thinned to what a figure can show, with one method a panel."""

    def __init__(self, plan: Plan, num_layers: int):
        self.plan, self.layers = plan, num_layers
        self.shown = thin(plan.steps)
        size, name = axis_scale(np.array([plan.steps]))
        self.step, self.step_label = (self.shown + 1) / size, axis_label("step", name)

    def lengths(self, axes: Axes) -> None:
        plan, entries = self.plan, [Entry("sequence length", colour_of(0))]
        axes.step(self.step, plan.sequence_length[self.shown], where="post", color=colour_of(0), linewidth=2)
        if (plan.kept_length < plan.sequence_length).any():
            axes.step(
                self.step, plan.kept_length[self.shown], where="post", color=colour_of(1), linewidth=1.5
            )
            entries.append(Entry("kept in the dropping layers", colour_of(1)))
        axes.set_ylim(bottom=0)
        frame(axes, "Lengths", self.step_label, "tokens of a row", entries)

    def caps(self, axes: Axes, kinds: dict[str, str]) -> None:
        """Caps of different kinds share an axis as shares of their last value."""
        percentile = all(kind == "percentile" for kind in kinds.values())
        alone = percentile or len(kinds) == 1
        for i, values in enumerate(self.plan.caps.values()):
            shown = values[self.shown] if alone else 100 * values[self.shown] / max(values[-1], 1)
            axes.step(self.step, shown, where="post", color=colour_of(i), linewidth=2 - 0.4 * i)
        label = (
            "admitted samples (%)"
            if percentile
            else "admitted value"
            if alone
            else "cap (% of its last value)"
        )
        axes.set_ylim(bottom=0)
        frame(
            axes,
            "Admitted difficulty",
            self.step_label,
            label,
            [Entry(name, colour_of(i)) for i, name in enumerate(kinds)],
        )

    def tokens(self, axes: Axes) -> None:
        plan, entries = self.plan, []
        size, name = axis_scale(plan.drawn_tokens, plan.raw_tokens)
        columns = {"effective": plan.consumed_tokens, "raw": plan.raw_tokens, "drawn": plan.drawn_tokens}
        for i, (label, column) in enumerate(columns.items()):
            axes.plot(self.step, column[self.shown] / size, color=colour_of(i), linewidth=2.4 - 0.6 * i)
            entries.append(Entry(f"{label} {short(column[-1])}", colour_of(i)))
        axes.set_ylim(bottom=0)
        frame(axes, "Tokens so far", self.step_label, axis_label("tokens", name), entries)

    def learning_rate(self, axes: Axes) -> None:
        tokens, rates = self.plan.consumed_tokens, self.plan.learning_rate
        size, name = axis_scale(tokens)
        scale, power = power_of_ten(rates)
        axes.plot(tokens[self.shown] / size, rates[self.shown] / scale, color=colour_of(0), linewidth=2)
        axes.set_ylim(bottom=0)
        entries = [Entry(f"peak {rates.max():.4g}, last {rates[-1]:.4g}", colour_of(0))]
        frame(
            axes,
            "Learning rate",
            axis_label("effective tokens", name),
            axis_label("learning rate", power),
            entries,
        )

    def layer_tokens(self, axes: Axes) -> None:
        plan = self.plan
        mine, every = np.diff(plan.layer_tokens, prepend=0), plan.rows * plan.sequence_length * self.layers
        size, name = axis_scale(every)
        axes.plot(self.step, mine[self.shown] / size, color=colour_of(0), linewidth=2)
        entries = [Entry("this plan", colour_of(0))]
        if (mine < every).any():
            axes.plot(
                self.step, every[self.shown] / size, color=FAINT, linewidth=1.2, linestyle="--", zorder=1
            )
            entries.append(Entry("every raw token in every layer", FAINT, "--"))
        axes.set_ylim(bottom=0)
        frame(axes, "Layer tokens of a step", self.step_label, axis_label("layer tokens", name), entries)

    def saved(self, axes: Axes) -> None:
        size, name = axis_scale(self.plan.consumed_tokens)
        share = 100 * (1 - self.plan.layer_tokens / (self.layers * self.plan.raw_tokens))
        axes.plot(
            self.plan.consumed_tokens[self.shown] / size, share[self.shown], color=colour_of(2), linewidth=2
        )
        axes.set_ylim(bottom=0)
        entries = [Entry(f"{share[-1]:.1f}% over the whole run", colour_of(2))]
        frame(axes, "Layer tokens saved so far", axis_label("effective tokens", name), "saved (%)", entries)

    def batch_size(self, axes: Axes) -> None:
        axes.step(self.step, self.plan.batch_size[self.shown], where="post", color=colour_of(0), linewidth=2)
        axes.step(self.step, self.plan.rows[self.shown], where="post", color=colour_of(1), linewidth=1.2)
        axes.set_ylim(bottom=0)
        frame(
            axes,
            "Batch",
            self.step_label,
            "of one step",
            [Entry("samples", colour_of(0)), Entry("rows", colour_of(1))],
        )
