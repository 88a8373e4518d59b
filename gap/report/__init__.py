"""The report: page, tables, charts, and the comparison of several runs."""
