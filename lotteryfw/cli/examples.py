"""Examples of every command, which its --help ends with, and the groups that commands stand in."""

from __future__ import annotations

EXAMPLES = {
    "recipe": ["quickstart", "study.toml --profile quick --set train.length=500it"],
    "plan": ["quickstart --network", "study.toml --measure --json"],
    "check": ["study.toml", "mine.py"],
    "init": ["mystudy"],
    "schema": ["> recipe.schema.json"],
    "runs list": ["", "--since 2026-01-01 --sort date"],
    "runs rm": ["runs/quickstart-12345678 --dry-run"],
    "report": ["runs/quickstart-12345678"],
    "export": [
        "runs/quickstart-12345678 --level 8 --as trained --out weights.safetensors",
        "runs/quickstart-12345678 --level 8 --out ticket.safetensors",
    ],
    "compare": ["runs/one runs/other", "runs/one runs/other --html comparison.html"],
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
