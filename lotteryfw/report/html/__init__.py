"""The page report.html and its charts, drawn by plotly.js."""
