"""A table of cells as LaTeX, Markdown, HTML and XLSX."""
