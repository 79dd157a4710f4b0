"""Commits that wait for each other anyhow are one transaction; those that are refused leave the others alone."""

from __future__ import annotations

import logging
import threading

from django.db import transaction

from problems import Problem
from repos import database
from repos.catalogue import Repo
from repos.publish.commits import Commit, Outcome, write
from repos.publish.contents import Bytes, delete_unused, store_what_is_missing, with_durable_bytes

log = logging.getLogger("entrepot.publish")


def commit_with_others(commit: Commit, action: str) -> Outcome:
    """Commit with whatever else waits to be committed to the repository."""
    store_what_is_missing(contents_of([commit]))  # here and not in the group, so that many sync at once
    return group_of(commit.repo, action).commit(commit)


class Group:
    """Commits that wait for one another anyhow: whoever's turn it is commits for all who have come meanwhile, in one transaction.

    A commit waits for the disk, and the next to the same repository for that one; together they wait once.
    """

    LARGEST = 200

    def __init__(self, action: str) -> None:
        self._action = action
        self._waiting: list[Commit] = []
        self._committing = False
        self._changed = threading.Condition()

    def commit(self, commit: Commit) -> Outcome:
        """The outcome of a commit, whose bytes are durable. Raises its problem."""
        with self._changed:
            self._waiting.append(commit)
        while group := self._turn_of(commit):
            try:
                self._commit(group)
            finally:
                with self._changed:
                    self._committing = False
                    self._changed.notify_all()
        return commit.future.result()

    def _turn_of(self, commit: Commit) -> list[Commit]:
        """Wait until the commit is done or nobody else commits; then those that the caller is to commit."""
        with self._changed:
            self._changed.wait_for(lambda: commit.future.done() or not self._committing)
            if commit.future.done():
                return []
            self._committing = True
            group, self._waiting = self._waiting[: self.LARGEST], self._waiting[self.LARGEST :]
            return group

    def _commit(self, commits: list[Commit]) -> None:
        try:
            commit_all(commits, self._action)
        except BaseException as error:
            log.exception("a group of %d commits failed", len(commits))
            for commit in commits:  # whoever waits has no other way to hear of it
                if not commit.future.done():
                    commit.future.set_exception(error)


_groups: dict[tuple[int, str], Group] = {}


def group_of(repo: Repo, action: str) -> Group:
    """Those who wait for the same lock: the repository's row, or, where a database has one writer, that one."""
    return _groups.setdefault((0 if database.has_one_writer() else repo.id, action), Group(action))


class _Refused(Exception):
    """Some of a group's commits are refused, so the transaction is undone: what is refused leaves no row."""

    def __init__(self, problems: dict[int, Problem]):
        super().__init__(len(problems))
        self.problems = problems


def commit_all(commits: list[Commit], action: str) -> None:
    """Commit what may be committed and put each one's outcome, or its problem, into its future."""

    def transact() -> dict[int, Outcome | Problem]:
        with transaction.atomic():
            outcomes = write(commits, action)
            if problems := {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, Problem)}:
                raise _Refused(problems)
            return outcomes

    try:
        outcomes = with_durable_bytes(contents_of(commits), transact)
    except _Refused as refused:
        _end([commit for commit in commits if id(commit) in refused.problems], refused.problems)
        if rest := [commit for commit in commits if id(commit) not in refused.problems]:
            commit_all(rest, action)
    except Exception as error:
        if len(commits) == 1:
            if isinstance(error, Problem):
                delete_unused(contents_of(commits))
            commits[0].future.set_exception(error)
            return
        for commit in commits:  # one of them may be to blame, and the others are not to suffer for it
            commit_all([commit], action)
    else:
        for commit in commits:
            commit.future.set_result(outcomes[id(commit)])


def contents_of(commits: list[Commit]) -> list[Bytes]:
    return [new.bytes for commit in commits for new in commit.news]


def _end(commits: list[Commit], problems: dict[int, Problem]) -> None:
    for commit in commits:
        commit.future.set_exception(problems[id(commit)])
    delete_unused(contents_of(commits))
