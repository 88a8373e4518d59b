"""Studies in small folders: packed records, the report as Markdown, and one page about several studies."""
