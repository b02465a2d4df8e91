"""Jobs in order, made by threads, handed over in the same order, never more than a budget at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Pipeline(Generic[Job, Result]):
    """Iterate over `make(job)` for each of `jobs`, in order, made ahead by `workers` threads.

    Jobs are begun in order; the costs of those begun and not yet asked past add up to at most `most` (one is always begun).
    An error of a job is raised when its turn comes. Leaving the `with` block stops the threads after what they are at.
    Without workers, everything happens when it is asked for.
    """

    def __init__(
        self,
        jobs: Iterator[Job],
        make: Callable[[Job], Result],
        cost: Callable[[Job], int],
        *,
        workers: int,
        most: int,
        ahead: int = 16,
    ) -> None:
        self._jobs, self._make, self._cost, self._most, self._ahead = jobs, make, cost, most, ahead
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._next_job = 0
        self._done: dict[int, tuple[Job, Result | None, BaseException | None]] = {}
        self._costs: dict[int, int] = {}
        self._end: int | None = None
        self._peeked: list[Job] = []
        self._stopping = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]

    def __enter__(self) -> Pipeline[Job, Result]:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __iter__(self) -> Iterator[tuple[Job, Result]]:
        if not self._threads:
            for job in self._jobs:
                yield job, self._make(job)
            return
        turn = 0
        while True:
            with self._changed:
                while turn not in self._done and (self._end is None or turn < self._end):
                    self._changed.wait()
                if turn not in self._done:
                    return
                job, result, error = self._done.pop(turn)
            if error is not None:
                raise error
            yield job, result  # type: ignore[misc]  # no error: the result is there
            del result
            with self._changed:
                del self._costs[turn]
                self._changed.notify_all()
            turn += 1

    def _take(self) -> tuple[int, Job] | None:
        """The next job once there is room for it; None when there is none, or the pipeline stops. Called with the lock held."""
        while not self._stopping:
            if self._end is not None:
                return None
            if not self._peeked:
                try:
                    self._peeked.append(next(self._jobs))
                except StopIteration:
                    self._end = self._next_job
                    self._changed.notify_all()
                    return None
            cost = self._cost(self._peeked[0])
            if not self._costs or (sum(self._costs.values()) + cost <= self._most and len(self._costs) < self._ahead):
                turn = self._next_job
                self._next_job += 1
                self._costs[turn] = cost
                return turn, self._peeked.pop()
            self._changed.wait()
        return None

    def _work(self) -> None:
        while True:
            with self._changed:
                try:
                    taken = self._take()
                except BaseException as error:  # the jobs themselves failed: raised in turn
                    self._done[self._next_job] = None, None, error  # type: ignore[assignment]  # there is no job
                    self._end = self._next_job + 1
                    self._changed.notify_all()
                    return
            if taken is None:
                return
            turn, job = taken
            result: Result | None = None
            failure: BaseException | None = None
            try:
                result = self._make(job)
            except BaseException as error:
                failure = error
            with self._changed:
                self._done[turn] = job, result, failure
                if failure is not None:
                    self._end = min(self._end, turn + 1) if self._end is not None else turn + 1
                self._changed.notify_all()
            if failure is not None:
                return
