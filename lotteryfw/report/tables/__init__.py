"""Tables as text, for a terminal and in Markdown."""
