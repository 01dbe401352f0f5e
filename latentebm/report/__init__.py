"""One self-contained HTML page for every kind of run."""

from latentebm.report.run_page import render_report

__all__ = ["render_report"]
