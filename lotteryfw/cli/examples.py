"""Examples of every command, which its --help ends with, and the groups that commands stand in."""

from __future__ import annotations

EXAMPLES = {
    "recipe": ["quickstart", "study.toml --profile quick --set train.length=500it"],
    "plan": ["quickstart --network", "study.toml --measure --json"],
    "check": ["study.toml", "mine.py"],
    "init": ["mystudy"],
    "schema": ["> recipe.schema.json"],
    "runs": ["runs"],
    "report": ["runs/quickstart-12345678"],
    "export": ["runs/quickstart-12345678/tickets/level-08.safetensors --out ticket.safetensors"],
    "compare": ["runs/one runs/other"],
    "list": ["criterion", "recipes"],
    "show": ["large_final"],
    "plugins": [""],
    "doctor": [""],
    "data list": [""],
    "data fetch": ["mnist"],
    "store info": [""],
    "store verify": [""],
    "store gc": ["--dry-run"],
}
"""Words after the command, by its name; a command that is not here has no example."""

GROUPS = {
    "Studies": ("init", "check", "plan", "recipe"),
    "Results": ("runs", "report", "compare", "export"),
    "Components and data": ("list", "show", "data", "plugins", "schema"),
    "This machine": ("store", "doctor"),
}
"""The groups of commands in `lotteryfw --help`, in order; others stand at the end."""


def epilog(command: str) -> str | None:
    """Return the examples of a command as the end of its help."""
    examples = EXAMPLES.get(command)
    if not examples:
        return None
    lines = []
    for words in examples:
        lines.append(f"  lotteryfw {command} {words}".rstrip())
    # \b keeps the lines from being joined into one paragraph
    return "\b\nExamples:\n" + "\n".join(lines)
