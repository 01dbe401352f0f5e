"""One self-contained HTML page of a run."""

from latentebm.report.page import render_report

__all__ = ["render_report"]
