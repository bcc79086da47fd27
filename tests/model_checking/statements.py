"""What a task will do is what its frames say: where each is, its locals, and what the statement has read so far.

A value that was read in an earlier statement lives on in a local, or in something shared, or not at all; one that was
read in this statement may be on the interpreter's stack, where nobody can look.  So a task's *local state* is, for
each of its frames, the instruction, the locals, and a digest of what was read since the statement began, by it or by
what it called.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from types import FrameType
from typing import Any


@functools.cache
def _begins(path: str) -> dict[int, int]:
    """By line of a file: the line in which its statement, or the head of its compound statement, begins."""
    with open(path) as source:
        tree = ast.parse(source.read())
    begins: dict[int, int] = {}
    for node in ast.walk(tree):  # outer ones first
        if not isinstance(node, ast.stmt):
            continue
        inner = [it.lineno for it in ast.walk(node) if isinstance(it, ast.stmt) and it is not node]
        last = min([node.end_lineno or node.lineno, *(line - 1 for line in inner)])
        begins.update((line, node.lineno) for line in range(node.lineno, max(last, node.lineno) + 1))
    return begins


@dataclass(slots=True)
class Reading:
    """A frame in the middle of a statement."""

    frame: FrameType
    statement: int
    digest: int = 0  # of what was read since it began


class Local:
    """One task's local state, told of each value read, and asked at points."""

    def __init__(self) -> None:
        self.stack: list[Reading] = []  # outermost first

    def saw(self, value: Any) -> None:
        if self.stack:
            top = self.stack[-1]
            top.digest = hash((top.digest, value))

    def at(self, frames: list[FrameType], token: Any) -> int:
        """It is at a point, in these frames, the outermost first."""
        stack = self.stack
        same = 0
        while same < len(stack) and same < len(frames) and stack[same].frame is frames[same]:
            same += 1
        if same:
            returned = tuple(it.digest for it in stack[same:])
            stack[same - 1].digest = hash((stack[same - 1].digest, returned)) if returned else stack[same - 1].digest
        del stack[same:]
        for reading in stack:
            statement = _statement(reading.frame)
            if statement != reading.statement:
                reading.statement, reading.digest = statement, 0
        stack.extend(Reading(frame, _statement(frame)) for frame in frames[same:])
        return hash(
            tuple(
                (id(it.frame.f_code), it.frame.f_lasti, it.digest, tuple(map(token, it.frame.f_locals.values())))
                for it in stack
            )
        )


def _statement(frame: FrameType) -> int:
    return _begins(frame.f_code.co_filename).get(frame.f_lineno, frame.f_lineno)
