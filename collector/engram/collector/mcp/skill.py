"""SKILL.md for agents that read such files: made from the registered tools, so it cannot drift."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("SKILL.md")


def skill(server: Any) -> str:
    """The text of the file."""
    tools = asyncio.run(server.list_tools())
    resources = asyncio.run(server.list_resources())
    templates = asyncio.run(server.list_resource_templates())
    prompts = asyncio.run(server.list_prompts())
    lines = [
        "---", "name: engram",
        "description: Ask and write the memory of this system: known errors and their fixes, past "
        "decisions and outcomes, traces, what was learned. Use before debugging, before deciding, "
        "and after a fix worked.",
        "---", "",
        "<!-- Made by `engram mcp --skill`; a test compares. -->", "",
        "# Engram", "", server.instructions or "", "", "## Tools", "",
    ]  # fmt: skip
    for tool in tools:
        reads = "reads" if tool.annotations and tool.annotations.read_only_hint else "writes"
        required = set(tool.input_schema.get("required", ()))
        arguments = ", ".join(
            name if name in required else f"{name}?"
            for name in tool.input_schema.get("properties", {})
        )
        lines += [f"### {tool.name}({arguments})", "", f"{tool.description} ({reads})", ""]
        for name, of in tool.input_schema.get("properties", {}).items():
            if of.get("description"):
                lines.append(f"- `{name}`: {of['description']}")
        if lines[-1]:
            lines.append("")
    lines += ["## Resources", ""]
    lines += [f"- `{one.uri}`: {one.description}" for one in resources]
    lines += [f"- `{one.uri_template}`: {one.description}" for one in templates]
    lines += ["", "## Prompts", ""]
    for prompt in prompts:
        told = ", ".join(one.name for one in prompt.arguments or ())
        lines.append(f"- `{prompt.name}` ({told}): {prompt.description}")
    return "\n".join(lines) + "\n"
