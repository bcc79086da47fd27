"""Who lets whom in: the facts, one by one, and the documentation's table that is made of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eventbridge.jobs import LETS_IN, Job, as_markdown
from eventbridge.jobs.kinds import ASYNC, NORMAL

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize(
    ("runs", "lets_in"),
    [
        ("MIGRATION_OUT", "QUERY DESTROY ABORT SUSPEND MIGRATION_OP"),
        ("MIGRATION_IN", "DESTROY"),
        ("SAVE", "QUERY DESTROY ABORT"),
        ("DUMP", "QUERY DESTROY ABORT"),
        ("SNAPSHOT", "DESTROY"),
        ("SNAPSHOT_WITH_MEMORY", "QUERY DESTROY ABORT SUSPEND MIGRATION_OP"),
        ("START", "DESTROY"),
        ("BACKUP", "QUERY DESTROY ABORT SUSPEND MODIFY"),
    ],
)
def test_an_async_job_lets_in_just_these(runs: str, lets_in: str) -> None:
    assert LETS_IN[Job[runs]] == {Job[name] for name in lets_in.split()}


def test_no_async_job_keeps_destroy_out_nor_lets_another_async_job_in() -> None:
    assert all(Job.DESTROY in row for row in LETS_IN.values())
    assert not any(job.is_async for row in LETS_IN.values() for job in row)


def test_every_job_is_either_normal_or_async() -> None:
    assert {*NORMAL, *ASYNC} == set(Job)
    assert not {*NORMAL} & {*ASYNC}
    assert [job.is_async for job in (*NORMAL, *ASYNC)] == [False] * 6 + [True] * 8


def test_the_documentation_has_a_row_for_each_async_job_and_a_mark_where_one_is_let_in() -> None:
    head, rule, *rows = as_markdown().splitlines()
    columns = [Job[name] for name in re.findall(r"[A-Z_]+", head)]
    assert len(rows) == len(LETS_IN)
    assert rule.count("---") == len(columns) + 1
    for row in rows:
        name, *marks = [cell.strip() for cell in row.strip("|").split("|")]
        assert {job for job, mark in zip(columns, marks, strict=True) if mark} == LETS_IN[Job[name]]


def test_the_readme_has_this_table_where_it_has_one() -> None:
    text = README.read_text()
    if "| async job |" in text:
        assert as_markdown() in text, "python -c 'from eventbridge.jobs import as_markdown; print(as_markdown())'"
