"""A training step as one CUDA graph launch: in small networks, launching a kernel takes longer than running it."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tune_cnn.errors import SlowerWarning

Step = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
_COMPARED = 3  # steps on the first batch; from the second on, the loss depends on the update before


class GraphedStep:
    """A training step, replayed as a graph on batches of the first one's shape; others, such as the last, run eagerly.

    As a check, the first batch is trained on eagerly, then by the graph, and both are undone. If the capture fails, or
    the losses are not equal bit for bit, all steps run eagerly, with a warning.
    See https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture.

    Each call gets the step, which trains on images (B, C, H, W) and labels (B,), and returns tensors, the loss first.
    Nothing else that the step uses may change from batch to batch, except the tensors of `model` and `optimizer`.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._model, self._optimizer = model, optimizer
        self._is_new = True
        self._replay: Callable[[], Any] | None = None

    def forget(self) -> None:
        """Capture a new graph at the next batch, since the optimizer's tensors have been replaced."""
        self._is_new, self._replay = True, None

    def __call__(self, step: Step, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        if self._is_new:
            self._is_new = False
            try:
                self._record(step, images, labels)
            except Exception as error:  # PyTorch raises AssertionErrors too
                fault = str(error).strip().partition("\n")[0]
                message = f"cuda_graph: not possible here, so steps run as they are ({fault})"
                warnings.warn(message, SlowerWarning, stacklevel=2)
        if self._replay is None or images.shape != self._batch[0].shape:
            return step(images, labels)
        return self._replayed(images, labels)

    def _replayed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        assert self._replay is not None
        for mine, theirs in zip(self._batch, (images, labels), strict=True):
            mine.copy_(theirs)
        self._replay()
        return tuple(result.clone() for result in self._results)  # the next replay overwrites them

    def _record(self, step: Step, images: Tensor, labels: Tensor) -> None:
        self._batch = images.clone(), labels.clone()  # input buffers of the graph
        before = {tensor: tensor.clone() for tensor in self._changed()}
        state = self._optimizer.state
        trained, fixed = {*state}, [g for g in self._optimizer.param_groups if g.get("capturable") is False]
        try:
            expected = on_side_stream(lambda: self._losses(step))
            for group in fixed:  # else PyTorch refuses, though fused optimizers can be captured as they are
                group["capturable"] = True
            self._results, self._replay = capture(lambda: step(*self._batch))
            self._restore(before)
            if not torch.equal(self._losses(self._replayed), expected):
                raise RuntimeError("its losses differ from those of the step as it is")
        except BaseException:
            self._replay = None
            for weight in state.keys() - trained:
                del state[weight]
            raise
        finally:
            for group in fixed:
                group["capturable"] = False
            self._restore(before)

    def _losses(self, step: Step) -> Tensor:
        """Losses of a few steps on the first batch; the random state is restored afterwards."""
        gpus = [self._batch[0].device] if self._batch[0].is_cuda else []
        with torch.random.fork_rng(gpus):
            return torch.cat([step(*self._batch)[0] for _ in range(_COMPARED)])

    def _changed(self) -> list[Tensor]:
        """All tensors that a step changes; a new optimizer has none before its first step."""
        states = [value for state in self._optimizer.state.values() for value in state.values()]
        changed = [*self._model.parameters(), *self._model.buffers(), *states]
        return [value for value in changed if isinstance(value, Tensor)]

    @torch.no_grad()
    def _restore(self, before: dict[Tensor, Tensor]) -> None:
        for tensor in self._changed():
            tensor.copy_(before.get(tensor, torch.zeros_like(tensor)))  # optimizer states start at zero


def on_side_stream(run: Callable[[], Tensor]) -> Tensor:
    """Run a function on a side stream, which PyTorch requires as a warm-up before its capture."""
    current, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(current)
    with torch.cuda.stream(side):
        result = run()
    current.wait_stream(side)
    return result


def capture(run: Callable[[], tuple[Tensor, ...]]) -> tuple[tuple[Tensor, ...], Callable[[], Any]]:
    """Capture a function: return its results, and a function that repeats its GPU work into the same tensors."""
    graph = torch.cuda.CUDAGraph()
    current = torch.cuda.stream(torch.cuda.current_stream())  # also restored where PyTorch's own context fails
    # thread_local: other threads, such as the one in which a DataLoader pins memory, may go on using CUDA.
    with current, torch.cuda.graph(graph, capture_error_mode="thread_local"):
        results = run()
    return results, graph.replay
