"""The plots that the figures and the page both draw, before either draws them."""
