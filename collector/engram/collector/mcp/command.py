"""`engram mcp`: the same server over standard input and output, for agents that start it."""

from __future__ import annotations

import asyncio
import logging
import sys

from engram.exporters.home import Home


def run(home: Home, *, read_only: bool = False, skill: bool = False) -> int:
    """Serve until the input ends, or print SKILL.md."""
    from engram.collector.access import AuditLog
    from engram.collector.mcp.http import noted
    from engram.collector.mcp.server import build
    from engram.collector.mcp.tools import Tools
    from engram.collector.sandbox import Sandbox
    from engram.learning.recall import Recall

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)  # the output is the protocol's
    recall, sandbox, log = Recall(home), Sandbox(home), AuditLog(home)
    tools = Tools(home, recall=recall, sandbox=sandbox)
    server = build(tools, read_only=read_only, noted=noted(log))
    try:
        if skill:
            from engram.collector.mcp.skill import skill as made

            sys.stdout.write(made(server))
            return 0
        asyncio.run(server.run_stdio_async())
    finally:
        tools.close()
        sandbox.close()
        recall.close()
        log.close()
    return 0
