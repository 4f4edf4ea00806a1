"""The contract: what components are, what they are shown, and what they give back."""
