"""A training step as a CUDA graph: one launch for all kernels. In small networks, a launch outlasts its kernel."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tune_cnn.errors import SlowerWarning

Step = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
_COMPARED = 3  # steps on the first batch; the second one's loss depends on what the first one did


class GraphedStep:
    """A training step that is replayed on batches of the first one's shape; others, such as an epoch's last, run as is.

    The first batch is trained on as it is, then by the graph, and forgotten again: where a graph cannot be captured, or
    its losses are not those of the step bit for bit, the step goes on as it is, with a warning.
    See https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture.

    A call is given the step, which trains on images (B, C, H, W) and labels (B,), and returns tensors, the loss first.
    What it does depends on nothing else that changes from batch to batch but the tensors of `model` and `optimizer`.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._model, self._optimizer = model, optimizer
        self._is_new = True
        self._replay: Callable[[], Any] | None = None

    def forget(self) -> None:
        """Capture the next batch's step anew, since the optimizer has other tensors now."""
        self._is_new, self._replay = True, None

    def __call__(self, step: Step, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        if self._is_new:
            self._is_new = False
            try:
                self._record(step, images, labels)
            except Exception as error:  # PyTorch raises AssertionError, too
                fault = str(error).strip().partition("\n")[0]
                told = f"cuda_graph: not possible here, so steps run as they are ({fault})"
                warnings.warn(told, SlowerWarning, stacklevel=2)
        if self._replay is None or images.shape != self._batch[0].shape:
            return step(images, labels)
        return self._replayed(images, labels)

    def _replayed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        assert self._replay is not None
        for mine, theirs in zip(self._batch, (images, labels), strict=True):
            mine.copy_(theirs)
        self._replay()
        return tuple(result.clone() for result in self._results)  # the next replay writes to the same place

    def _record(self, step: Step, images: Tensor, labels: Tensor) -> None:
        self._batch = images.clone(), labels.clone()  # where the graph looks for each batch
        before = {tensor: tensor.clone() for tensor in self._changed()}
        state = self._optimizer.state
        trained, fixed = {*state}, [g for g in self._optimizer.param_groups if g.get("capturable") is False]
        try:
            expected = on_side_stream(lambda: self._losses(step))
            for group in fixed:  # else PyTorch refuses, though a fused optimizer needs nothing for it
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
        """Losses of some steps on the first batch, with the random numbers that come next."""
        gpus = [self._batch[0].device] if self._batch[0].is_cuda else []
        with torch.random.fork_rng(gpus):
            return torch.cat([step(*self._batch)[0] for _ in range(_COMPARED)])

    def _changed(self) -> list[Tensor]:
        """All that a step changes; a new optimizer has its part only after the first."""
        states = [value for state in self._optimizer.state.values() for value in state.values()]
        changed = [*self._model.parameters(), *self._model.buffers(), *states]
        return [value for value in changed if isinstance(value, Tensor)]

    @torch.no_grad()
    def _restore(self, before: dict[Tensor, Tensor]) -> None:
        for tensor in self._changed():
            tensor.copy_(before.get(tensor, torch.zeros_like(tensor)))  # optimizers begin with zeros


def on_side_stream(run: Callable[[], Tensor]) -> Tensor:
    """Run what will be captured, as it has to be run before, on a stream of its own."""
    current, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(current)
    with torch.cuda.stream(side):
        result = run()
    current.wait_stream(side)
    return result


def capture(run: Callable[[], tuple[Tensor, ...]]) -> tuple[tuple[Tensor, ...], Callable[[], Any]]:
    """What a function gives, and what does its work on the GPU once more, into the same tensors."""
    graph = torch.cuda.CUDAGraph()
    current = torch.cuda.stream(torch.cuda.current_stream())  # again at the end, where PyTorch's own context fails
    # Other threads, such as a DataLoader's that pins memory, may go on.
    with current, torch.cuda.graph(graph, capture_error_mode="thread_local"):
        results = run()
    return results, graph.replay
