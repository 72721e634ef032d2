"""Ways to work with memory that a person can start by name."""

from __future__ import annotations


def debug_this_error(error: str) -> str:
    """Find out whether an error is known, why it happens, and what fixes it."""
    return (
        "Debug this error with Engram's memory.\n\n"
        f"<error>\n{error}\n</error>\n\n"
        "1. find_known_error with its text. A solution with a record of success comes first.\n"
        "2. If it is known, get its last trace; else recall what changed lately.\n"
        "3. compare spans with status=error to those with status=ok of the same service and time.\n"
        "4. Say the cause with the ids that show it, and what is only a guess.\n"
        "5. When a fix works: remember it (type error_solution, links to the error) or "
        "record_outcome for the solution that was there."
    )


def start_of_task_briefing(task: str) -> str:
    """Collect what is known before beginning a task."""
    return (
        f"Before beginning this task, collect what memory knows of it: {task}\n\n"
        "1. whats_new since 24h.\n"
        "2. recall the task in one sentence, then its most specific words.\n"
        "3. ask_decision if there are options to choose from.\n"
        "Sum up in ten lines: what is known, what failed before, what is open; with ids."
    )


def end_of_task_learnings(summary: str) -> str:
    """Keep what a task has taught."""
    return (
        f"The task is done: {summary}\n\n"
        "remember what the next agent needs and cannot see in the code: causes, fixes "
        "(error_solution), decisions with their reasons (business_decision), dead ends "
        "(ai_insight). One fact each, self-contained, with links. record_outcome for every "
        "solution or decision from memory that was used. Nothing that is only a guess."
    )


def weekly_review(service: str = "") -> str:
    """What happened in a week, what was learned, and what is open."""
    scope = f" with scope service={service}" if service else ""
    return (
        f"Review the last seven days{scope}.\n\n"
        "1. whats_new since 7d.\n"
        "2. compare since=7d to since=14d, until=7d: what has changed?\n"
        "3. recall decisions of the week (types business_decision); which outcomes are due?\n"
        "Tell: new errors, what became slower, what was learned, what to do next week; with ids."
    )


ALL = {
    "debug-this-error": debug_this_error,
    "start-of-task-briefing": start_of_task_briefing,
    "end-of-task-learnings": end_of_task_learnings,
    "weekly-review": weekly_review,
}
