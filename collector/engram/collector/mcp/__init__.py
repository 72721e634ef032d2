"""Memory for agents by the Model Context Protocol: `/mcp` of `engram serve`, or `engram mcp`.

`tools` is what an agent can do, `server` registers it with the SDK, `http` mounts it. Nothing here
imports the SDK before the first request: idle, `serve` stays small.
"""
