"""The report: page, tables, charts, and several runs side by side."""
